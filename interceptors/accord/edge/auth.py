"""Who calls from outside: a bearer token, which is a JWT of somebody whose keys are known.

Algorithms are pinned and asymmetric: a token can neither choose "none", nor have a public key taken
for a shared secret. Keys are found by their id; they are read again from time to time, and when a
token names one that is not known, but not too often and never in the event loop.
Sources: RFC 6750 (bearer tokens), RFC 7517 (key sets), RFC 7519 (JWT), RFC 8725 (best practices),
RFC 9068 (access tokens).
"""

import asyncio
import json
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import urlopen

import grpc

from accord._log import log
from accord.edge.problem import EdgeError

try:
    import jwt
except ImportError as error:
    raise ImportError("accord.edge needs PyJWT: pip install 'accord[edge]'") from error

UNAUTHENTICATED: Final = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED: Final = grpc.StatusCode.PERMISSION_DENIED

ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "PS256", "RS256")
"""Those that a token may be signed with, unless the authenticator names others."""

MAX_TOKEN: Final = 8 * 1024
"""Bytes of a token."""

MAX_KEYS: Final = 1024 * 1024
"""Bytes of a key set."""

_SYMMETRIC: Final = re.compile(r"none|HS\d+", re.IGNORECASE)
_NAME: Final = re.compile(r"[!-~]{1,128}")
_ROLES: Final = 16
_SCOPES: Final = 256
_RECENT: Final = 4096
"""Verified tokens that are remembered."""

_REASONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (jwt.ExpiredSignatureError, "TOKEN_EXPIRED", "has expired"),
    (jwt.ImmatureSignatureError, "TOKEN_NOT_YET_VALID", "is from the future"),
    (jwt.InvalidAudienceError, "TOKEN_AUDIENCE", "is for somebody else"),
    (jwt.InvalidIssuerError, "TOKEN_ISSUER", "is of another issuer"),
    (jwt.MissingRequiredClaimError, "TOKEN_CLAIMS", "lacks one of iss, sub, aud, exp"),
    (jwt.InvalidSignatureError, "TOKEN_SIGNATURE", "is not signed by its key"),
    (jwt.InvalidAlgorithmError, "TOKEN_ALGORITHM", "is signed with an algorithm not allowed"),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as a verified token says."""

    subject: str
    """Such as the id of a customer."""
    scopes: frozenset[str]
    """What the token permits, such as "orders:read"."""
    roles: frozenset[str]
    """Such as "operator"."""
    expires: float
    """POSIX seconds at which the token ends."""


class KeySet:
    """Public keys by id (JWKS). Belongs to one event loop."""

    def __init__(self, read: Callable[[], bytes], every: float, patience: float) -> None:
        """`read` gives the JSON text, in another thread; it may raise OSError.

        It is asked when `every` so many seconds have passed, and for a key that is not known after
        `patience`.
        """
        self._read = read
        self._every = every
        self._patience = patience
        self._text: bytes | None = None
        self._keys: dict[str, jwt.PyJWK] = {}
        self._reading: asyncio.Future[bytes] | None = None
        self._read_at = -math.inf
        self.generation = 0
        """Another number whenever the keys are others."""

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The keys in a file; when it changes they are others within two seconds.

        Raises ValueError, or OSError: there is no key set in it.
        """
        found = cls(Path(path).read_bytes, 2.0, 1.0)
        found._take(Path(path).read_bytes())
        return found

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> Self:
        """The keys at a URL, read when they are first needed, and then every five minutes.

        `timeout`: seconds that a reading may take. Raises ValueError: the URL is not https, nor
        http.
        """
        if urlsplit(url).scheme not in ("https", "http"):
            raise ValueError(f"a key set is at a URL of https or http, not {url!r}")

        def read() -> bytes:
            with urlopen(url, timeout=timeout) as answer:
                text: bytes = answer.read(MAX_KEYS + 1)
                return text

        return cls(read, 300.0, 5.0)

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """A key by its id; None: there is none. Without an id it is the only one, if it is."""
        await self.renew(self._every)
        if (found := self._named(kid)) is None:
            await self.renew(self._patience)
            found = self._named(kid)
        return found

    def _named(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def renew(self, age: float | None = None) -> None:
        """Read them if they are older, in seconds, once for all who wait for it."""
        if self._reading is None:
            now = time.monotonic()
            if now - self._read_at < (self._every if age is None else age):
                return
            self._read_at = now
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read))
            self._reading.add_done_callback(self._has_read)
        await asyncio.wait((self._reading,))  # whoever gives up ends it for nobody else

    def _has_read(self, reading: "asyncio.Future[bytes]") -> None:
        self._reading = None
        try:
            self._take(reading.result())
        except (OSError, ValueError) as error:
            log(logging.ERROR, "a key set cannot be read, and the last one stays", error=error)

    def _take(self, text: bytes) -> None:
        if text == self._text:
            return
        listed = json.loads(text) if len(text) <= MAX_KEYS else None
        listed = listed.get("keys") if isinstance(listed, dict) else None
        keys: dict[str, jwt.PyJWK] = {}
        for each in listed if isinstance(listed, list) else ():
            if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use") == "enc":
                continue  # a shared secret verifies nothing that others may know
            with suppress(jwt.PyJWTError):  # of a kind that is not known here
                keys[str(each.get("kid", ""))] = jwt.PyJWK(each)
        if not keys:
            raise ValueError('a key set has no "keys" that can be used')
        self._text, self._keys = text, keys
        self.generation += 1


class Authenticator:
    """Verifies bearer tokens. Belongs to one event loop."""

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        audience: str,
        algorithms: Sequence[str] = ALGORITHMS,
        leeway: float = 5.0,
    ) -> None:
        """What a token must be.

        Args:
            keys: of its issuer.
            issuer: its `iss`.
            audience: its `aud`, or one of several.
            algorithms: that it may be signed with, none of a shared secret.
            leeway: seconds by which clocks may differ.

        Raises:
            ValueError: one of the algorithms is "none", symmetric or not known, or there is none.
        """
        known = jwt.algorithms.get_default_algorithms()
        for name in algorithms:
            if _SYMMETRIC.fullmatch(name) or name not in known:
                raise ValueError(f"{name!r} is no algorithm of public keys")
        if not algorithms:
            raise ValueError("no algorithm is allowed")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._leeway = leeway
        self._recent: OrderedDict[str, tuple[Caller, int]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> Caller | None:
        """Who a header `Authorization` says to call; None: there is no such header.

        Raises EdgeError, UNAUTHENTICATED: it is there and is not to be believed.
        """
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
            raise refused("TOKEN_MALFORMED", "is none of Bearer, or too large")
        await self._keys.renew()
        known = self._recent.get(token)
        if known is not None and known[1] == self._keys.generation:
            if time.time() >= known[0].expires + self._leeway:
                raise refused("TOKEN_EXPIRED", "has expired")
            return known[0]
        caller = await self._verified(token)
        self._recent[token] = caller, self._keys.generation
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return caller

    async def _verified(self, token: str) -> Caller:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise refused("TOKEN_MALFORMED", "is no JWT") from None
        if header.get("alg") not in self._algorithms:
            raise refused("TOKEN_ALGORITHM", "is signed with an algorithm not allowed")
        kid = header.get("kid")
        key = await self._keys.find(kid) if kid is None or isinstance(kid, str) else None
        if key is None:
            raise refused("TOKEN_KEY", "is signed with a key that is not known")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except jwt.InvalidTokenError as error:
            raise next(
                (refused(why, text) for kind, why, text in _REASONS if isinstance(error, kind)),
                refused("TOKEN_MALFORMED", "cannot be read"),
            ) from None
        return _caller(claims)


def _caller(claims: dict[str, Any]) -> Caller:
    subject, scope, roles = claims["sub"], claims.get("scope", ""), claims.get("roles", [])
    expires = claims["exp"]
    named = [subject, *roles] if isinstance(roles, list) and len(roles) <= _ROLES else [None]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in named):
        raise refused("TOKEN_CLAIMS", "has a sub or roles that are none")
    if not isinstance(scope, str) or len(scopes := [*filter(None, scope.split(" "))]) > _SCOPES:
        raise refused("TOKEN_CLAIMS", "has a scope that is none")
    if not isinstance(expires, int | float):
        raise refused("TOKEN_CLAIMS", "has an exp that is no number")  # JWT takes "1"
    return Caller(subject, frozenset(scopes), frozenset(roles), float(expires))


def refused(reason: str, what: str) -> EdgeError:
    """The answer to a token that is not to be believed (RFC 6750, 3.1)."""
    text = f"the bearer token {what}"
    header = f'Bearer error="invalid_token", error_description="{text}"'
    return EdgeError(401, UNAUTHENTICATED, reason, text, {"www-authenticate": header})


def check_scopes(caller: Caller | None, scopes: Sequence[str]) -> None:
    """That a caller has all of these scopes. Raises EdgeError."""
    if caller is None:
        header = {"www-authenticate": "Bearer"}
        raise EdgeError(401, UNAUTHENTICATED, "TOKEN_MISSING", "it needs a bearer token", header)
    if not caller.scopes.issuperset(scopes):
        listed = " ".join(scopes)
        header = {"www-authenticate": f'Bearer error="insufficient_scope", scope="{listed}"'}
        text = f"it needs a token with scope {listed}"
        raise EdgeError(403, PERMISSION_DENIED, "INSUFFICIENT_SCOPE", text, header)
