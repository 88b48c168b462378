"""Who calls, by certificate and nothing else.

A certificate is read once: each call of its holder pays for finding it, and for asking the deny
list. A handshake is not asked again for what it has accepted, and a TLS session may be resumed with
a certificate that has expired since; so its end is looked at with every call, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from accord.context import ANONYMOUS
from accord.server.types import GrpcContext, Options

if TYPE_CHECKING:
    from accord.identity import Identity

WRONG_TRUST_DOMAIN: Final = "WRONG_TRUST_DOMAIN"
"""ErrorInfo reason: the caller is of a trust domain that is not accepted here."""

REVOKED: Final = "REVOKED"
"""ErrorInfo reason: the caller's certificate, or one that it leads to, is on the deny list."""

EXPIRED: Final = "EXPIRED"
"""ErrorInfo reason: the certificate has ended since, and longer ago than a connection lives."""

UNREADABLE: Final = "UNREADABLE"
"""ErrorInfo reason: TLS has accepted a certificate of which nobody here can tell the serial."""

MAX_KEPT: Final = 4096
"""Certificates that are kept by their text."""

_FOR_EVER: Final = 2**31 - 1
_JITTER: Final = 1.1
"""By so much gRPC may lengthen the age of a connection."""

_SPIFFE: Final = "peer_spiffe_id"
_CERTIFICATE: Final = "x509_pem_cert"
_CHAIN: Final = "x509_pem_cert_chain"  # without that


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `reason`: why he is not served, whatever he calls; `text` says it in words."""

    principal: str = ANONYMOUS
    reason: str = ""
    text: str = ""
    ends: float = math.inf
    """When his certificate ends, in POSIX seconds."""
    operates: bool | None = None
    """Whether he is one of the identity's operators, if it names any."""


NOBODY: Final = Caller()


class Callers:
    """The callers of one server."""

    def __init__(self, identity: "Identity | None") -> None:
        self._identity = identity
        self._age = math.inf
        """Seconds that a connection lives, at most."""
        self._kept: dict[bytes, Caller] = {}

    def bound(self, options: Options) -> None:
        """Learn from a server's options how long its connections live."""
        age = int(dict(options).get("grpc.max_connection_age_ms", _FOR_EVER))
        self._age = math.inf if age >= _FOR_EVER else age / 1000 * _JITTER + 1

    def find(self, grpc_context: GrpcContext) -> Caller:
        """Who makes this call."""
        properties, identity = grpc_context.auth_context(), self._identity
        texts = properties.get(_CERTIFICATE)
        if not texts:
            return NOBODY
        try:
            caller = self._kept.get(texts[0])
            if caller is None:
                if len(self._kept) >= MAX_KEPT:
                    self._kept.clear()
                caller = self._kept[texts[0]] = self._read(properties)
            if identity is None or caller.reason:
                return caller
            if identity.is_revoked(texts[0], *properties.get(_CHAIN, ())):
                return replace(caller, reason=REVOKED, text="the certificate is revoked")
        except ValueError as error:
            return Caller(reason=UNREADABLE, text=str(error))
        if identity.clock() > caller.ends + self._age:
            return replace(caller, reason=EXPIRED, text="the certificate has expired")
        return caller

    def _read(self, properties: Mapping[str, Sequence[bytes]]) -> Caller:
        found, identity = properties.get(_SPIFFE), self._identity
        if not found:  # gRPC gives it only if there is one URI
            names = [*properties.get("peer_uri", ()), *properties.get("peer_dns", ())]
            text = ", ".join(name.decode(errors="replace") for name in names[:4]) or "nothing"
            return Caller(text=f"this one names {text}")
        principal = found[0].decode(errors="replace")
        if identity is None:
            return Caller(principal)
        ends = identity.ends(properties[_CERTIFICATE][0])
        if principal.split("/")[2] not in identity.trust_domains:
            text = f"{principal} is of none of the trust domains that are accepted here"
            return Caller(principal, WRONG_TRUST_DOMAIN, text, ends)
        operates = principal in identity.operators if identity.operators else None
        return Caller(principal, ends=ends, operates=operates)
