"""Who calls from outside: a bearer token, which is a JWT of somebody whose keys are known.

Algorithms are pinned and asymmetric: a token can neither choose "none", nor have a public key taken
for a shared secret. Keys are looked for by their id and read again when their file changes, or when
a token names one that is not known, at most every few seconds and never in the event loop.
Sources: RFC 6750 (bearer tokens), RFC 7517 (key sets), RFC 7519 (JWT), RFC 8725 (best practices),
RFC 9068 (access tokens).
"""

import asyncio
import json
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
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

PATIENCE: Final = 5.0
"""Seconds that pass at least between two readings of a key set."""

REFRESH: Final = 300.0
"""Seconds after which a key set that has no file is read again although all keys are known."""

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

    def __init__(
        self, read: Callable[[], bytes], changed: Callable[[], bool] | None = None
    ) -> None:
        """`read` gives the JSON text, in another thread; it may raise OSError.

        `changed` says whether it is worth it, asked at most every second; None: time has passed.
        """
        self._read = read
        self._changed = changed
        self._keys: dict[str, jwt.PyJWK] = {}
        self._reading: asyncio.Future[bytes] | None = None
        self._tried = -REFRESH
        self._looked = 0.0
        self.generation = 0
        """Another number whenever the keys are others."""

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The keys in a file, which is read again when it changes.

        Raises ValueError, or OSError: there is no key set in it.
        """
        state = [_state(path)]

        def changed() -> bool:
            before, state[0] = state[0], _state(path)
            return before != state[0]

        found = cls(Path(path).read_bytes, changed)
        found._take(Path(path).read_bytes())
        found._tried = time.monotonic()
        return found

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> Self:
        """The keys at a URL, which is read when they are first needed.

        `timeout`: seconds that a reading may take. Raises ValueError: the URL is not https, nor
        http.
        """
        if urlsplit(url).scheme not in ("https", "http"):
            raise ValueError(f"a key set is at a URL of https or http, not {url!r}")

        def read() -> bytes:
            with urlopen(url, timeout=timeout) as answer:
                text: bytes = answer.read(MAX_KEYS + 1)
                return text

        return cls(read)

    async def look(self) -> None:
        """Read them again if they may be others."""
        now = time.monotonic()
        if self._changed is None:
            if now - self._tried >= REFRESH:
                await self._refresh()
        elif now - self._looked >= 1.0:
            self._looked = now
            if self._changed():
                self._tried = -REFRESH
                await self._refresh()

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """A key by its id; None: there is none. Without an id it is the only one, if it is."""
        await self.look()
        found = self._named(kid)
        if found is None:
            await self._refresh()
            found = self._named(kid)
        return found

    def _named(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        """Read them, if it is not too soon, once for all who wait for it."""
        if self._reading is None:
            now = time.monotonic()
            if now - self._tried < PATIENCE:
                return
            self._tried = now
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
        if len(text) > MAX_KEYS:
            raise ValueError(f"a key set has more than {MAX_KEYS} bytes")
        listed = json.loads(text)
        listed = listed.get("keys") if isinstance(listed, dict) else None
        keys: dict[str, jwt.PyJWK] = {}
        for each in listed if isinstance(listed, list) else ():
            if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use") == "enc":
                continue  # a shared secret verifies nothing that others may know
            try:
                keys[str(each.get("kid", ""))] = jwt.PyJWK(each)
            except jwt.PyJWTError:
                continue  # of a kind that is not known here
        if not keys:
            raise ValueError("a key set has no key that can be used")
        self._keys = keys
        self.generation += 1


def _state(path: str | Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


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
        await self._keys.look()
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
    if not isinstance(scope, str) or len(scopes := scope.split()) > _SCOPES:
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
