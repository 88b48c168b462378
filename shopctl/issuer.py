"""The development issuer of the edge's bearer tokens, for whoever has no identity provider.

    <home>/edge/issuer.key   signs tokens; 0600
    <home>/edge/jwks.json    the edge verifies by these: the newest key first, then the one before

Keys are replaced without a gap: the edge knows a new one `SETTLE` seconds before it signs, and the
old one until the next is made, which outlives every token that it has signed.
"""

import base64
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services.bearer_tokens import AUDIENCE, ISSUER, JWKS
from shopctl.errors import CommandError

LIFE: Final = 900
"""Seconds that a token is valid."""

SETTLE: Final = 3.0
"""Seconds after which the edge has read a file that has changed."""

KEY: Final = "issuer.key"

SCOPES: Final = ("customers:read", "orders:read", "orders:write")
"""What every token allows; whose things it is about is another matter: see `issue`."""


def prepare(home: Path) -> None:
    """Make a key, unless there is one."""
    folder = _folder(home)
    if not all((folder / name).exists() for name in (KEY, JWKS)):
        from shopctl.certs import files  # cryptography takes long to import

        with files.locked(folder):
            pem, public = _new()
            files.write(folder, jwks_json=_jwks(public), issuer_key=pem)


def rotate(home: Path, sleep: Callable[[float], None] = time.sleep) -> None:
    """Replace the key, which takes `SETTLE` seconds; tokens of the old one are valid to their end.

    A key that somebody else may have is to be replaced twice: then its tokens are refused.

    Raises:
        CommandError: there is none.
    """
    from shopctl.certs import files

    folder = _folder(home)
    _read(folder)  # before a folder is made
    with files.locked(folder):
        _, old = _read(folder)
        pem, new = _new()
        files.write(folder, jwks_json=_jwks(new, old))
        sleep(SETTLE)
        files.write(folder, issuer_key=pem)


def issue(
    home: Path,
    subject: str,
    roles: Sequence[str],
    *,
    scopes: Sequence[str] = SCOPES,
    environment: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> str:
    """A bearer token of the edge: a JWT by RFC 9068, valid for `LIFE` seconds.

    Args:
        home: the shop.
        subject: the id of a customer, or of somebody of the staff.
        roles: "customer" sees what is theirs, "operator" everything.
        scopes: what it allows.
        environment: names the issuer and the audience, as for the edge.
        now: POSIX seconds; None for the time that it is.

    Raises:
        CommandError: there is no key.
    """
    import jwt

    key, public = _read(_folder(home))
    issued = int(time.time() if now is None else now)
    claims = {
        "iss": ISSUER.of(environment),
        "aud": AUDIENCE.of(environment),
        "sub": subject,
        "client_id": "shopctl",
        "iat": issued,
        "exp": issued + LIFE,
        "jti": str(uuid.uuid4()),
        "scope": " ".join(scopes),
        "roles": list(roles),
    }
    return jwt.encode(claims, key, "ES256", headers={"kid": public["kid"], "typ": "at+jwt"})


def _folder(home: Path) -> Path:
    return home / "edge"


def _new() -> tuple[bytes, dict[str, Any]]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _public(key)


def _read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The key that signs, and what the edge knows of it."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key: Any = load_pem_private_key((folder / KEY).read_bytes(), None)
    except FileNotFoundError:
        text = f"no key in {folder}; make it: shopctl certs init, unless MESH_EDGE_JWKS is in force"
        raise CommandError(text) from None
    return key, _public(key)


def _public(key: Any) -> dict[str, Any]:
    """As in a key set (RFC 7517), by the name of its thumbprint (RFC 7638)."""
    from jwt.algorithms import ECAlgorithm

    found: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    bare = {name: found[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(bare, separators=(",", ":")).encode()).digest()
    name = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**bare, "kid": name, "alg": "ES256", "use": "sig"}


def _jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}, indent=1).encode() + b"\n"
