"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), version 1."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"


def new_secret() -> str:
    """A secret, as subscribers are given it: 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signatures(given: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one for each secret, so that one of them may be changed."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    found = []
    for secret in given:
        key = base64.b64decode(secret.removeprefix(PREFIX))
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        found.append(f"v1,{base64.b64encode(digest).decode()}")
    return " ".join(found)
