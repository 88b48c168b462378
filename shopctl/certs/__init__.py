"""The shop's own certificate authority, for whoever has none: see docs/certificates.md."""

from typing import Final

from services.topology import BROKER, CONSOLE, EDGE, SERVICES

OPERATOR: Final = "operator"
"""Whose certificate `shopctl` shows."""
IDENTITIES: Final = (*SERVICES, EDGE, CONSOLE, OPERATOR, BROKER)
"""Who gets a certificate without being asked."""

TRUST_DOMAIN: Final = "shop.internal"


def spiffe_id(name: str, trust_domain: str = TRUST_DOMAIN) -> str:
    """The identity of a service."""
    return f"spiffe://{trust_domain}/{name}"
