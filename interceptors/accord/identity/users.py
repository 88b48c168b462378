"""The end user of a call: a short-lived token of the edge, which every service verifies by itself.

    token = users.issue(identity.bundle, "7f3c...", ["customer"])
    await orders.GetOrder(request, metadata=[(users.USER_KEY, token)])

A token is a JWT of at most a minute in the metadata `accord-user`, signed by the key of a leaf
whose chain it carries (`x5c`) and the roots of the mesh vouch for. It says for whom a call is made,
and never who makes it: that is the certificate's business, which is checked first. It travels down
nested calls as it is; nobody can extend it.

Sources: RFC 7519 (JWT), RFC 7515 4.1.6 (x5c), RFC 8725 (best practices: one algorithm, strict
audience and issuer, bounded life).
"""

import base64
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final, Generic, TypeVar

from accord.context import USER_KEY, User
from accord.errors import Unauthenticated
from accord.identity.bundle import Bundle, spiffe_id
from accord.identity.identity import Identity

try:
    import jwt
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import verification
except ImportError as error:
    raise ImportError(
        "accord.identity.users needs PyJWT: pip install 'accord[identity]'"
    ) from error

__all__ = ["ISSUERS", "LEEWAY", "MAX_LIFE", "USER_KEY", "User", "UserTokens", "issue"]

ALGORITHM: Final = "ES256"

ISSUERS: Final = ("edge", "console", "operator")
"""Identities of the own trust domain that may say for whom a call is made."""

MAX_LIFE: Final = 60.0
"""Seconds that a token lives, at most."""

LEEWAY: Final = 5.0
"""Seconds by which the clocks of issuer and verifier may differ."""

MAX_BYTES: Final = 8 * 1024
"""Of a token: a chain of three certificates has about three thousand."""

MAX_CHAIN: Final = 4
"""Certificates in a token."""

_RECENT: Final = 256
"""Verified chains that are remembered, and as many tokens."""

_UNREADABLE: Final = (
    TypeError,
    ValueError,  # IdentityError is one
    x509.InvalidVersion,
    exceptions.UnsupportedAlgorithm,
    verification.VerificationError,
)
"""What is raised of certificates that are none, or that the roots do not vouch for."""

K = TypeVar("K")
V = TypeVar("V")

_ROLES: Final = 16
_NAME: Final = re.compile(r"[!-~]{1,128}")
_REASONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (jwt.ExpiredSignatureError, "TOKEN_EXPIRED", "has expired"),
    (jwt.ImmatureSignatureError, "TOKEN_NOT_YET_VALID", "is from the future"),
    (jwt.InvalidAudienceError, "TOKEN_AUDIENCE", "is for another mesh"),
    (jwt.InvalidIssuerError, "TOKEN_ISSUER", "names another issuer than its certificate"),
    (jwt.MissingRequiredClaimError, "TOKEN_CLAIMS", "lacks one of iss, sub, aud, iat, exp"),
    (jwt.InvalidSignatureError, "TOKEN_SIGNATURE", "is not signed by its certificate's key"),
    (jwt.InvalidAlgorithmError, "TOKEN_ALGORITHM", "is not signed with ES256"),
)


def issue(bundle: Bundle, subject: str, roles: Iterable[str], *, life: float = MAX_LIFE,
          now: float | None = None) -> str:  # fmt: skip
    """A token that says for whom calls are made, in the name of an identity.

    Args:
        bundle: certificate and key of who issues it, one of `ISSUERS`.
        subject: whose calls they are: the id of a customer, or of somebody of the staff.
        roles: such as "customer" or "operator".
        life: seconds, `MAX_LIFE` at most or nobody takes it.
        now: POSIX seconds; None for the time that it is.
    """
    issued = int(time.time() if now is None else now)
    chain = x509.load_pem_x509_certificates(bundle.certificate)
    claims = {
        "iss": bundle.id,
        "sub": subject,
        "aud": bundle.trust_domain,
        "iat": issued,
        "exp": issued + int(life),
        "roles": list(roles),
    }
    encoded = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]
    return jwt.encode(claims, bundle.key, ALGORITHM, headers={"x5c": encoded})


@dataclass(frozen=True, slots=True)
class _Vouched:
    """A chain that leads to one of the roots."""

    issuer: str
    key: ec.EllipticCurvePublicKey
    certificates: tuple[bytes, ...]
    """PEM, of those that can be revoked."""
    begins: float
    ends: float
    """POSIX seconds between which all of it is valid."""


class _Recent(Generic[K, V]):
    """Results that are found again, the last `_RECENT` of them. Safe under threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > _RECENT:
                self._kept.popitem(last=False)


class UserTokens:
    """Verifies the tokens that come with calls. Safe under threads.

    Signatures are verified once, of a chain and of a token, which many calls have; times and the
    deny list are looked at with each call.
    """

    def __init__(self, identity: Identity, issuers: Sequence[str] = ISSUERS) -> None:
        """`identity`: whose roots and trust domain count; `issuers`: names in that domain."""
        self._identity = identity
        self._issuers = frozenset(f"spiffe://{identity.trust_domain}/{name}" for name in issuers)
        self._chains = _Recent[bytes, _Vouched]()
        self._users = _Recent[str, tuple[User, float, bytes, _Vouched]]()

    def read(self, token: str | bytes) -> User:
        """The user of a token. Raises Unauthenticated: it is not to be believed."""
        if not isinstance(token, str) or len(token) > MAX_BYTES:
            raise _refused("TOKEN_MALFORMED", "is none, or too large")
        roots = self._identity.bundle.roots
        if (known := self._users.get(token)) is not None:
            user, ends, trusted, vouched = known
            if time.time() < ends and trusted == roots:
                self._check(vouched)
                return user
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise _refused("TOKEN_MALFORMED", "is no JWT") from None
        if header.get("alg") != ALGORITHM:
            raise _refused("TOKEN_ALGORITHM", "is not signed with ES256")
        vouched = self._vouched(header.get("x5c"), roots)
        if vouched.issuer not in self._issuers:
            raise _refused("TOKEN_ISSUER", f"is of {vouched.issuer}, who issues none")
        try:
            claims = jwt.decode(
                token,
                vouched.key,
                algorithms=[ALGORITHM],
                audience=self._identity.trust_domain,
                issuer=vouched.issuer,
                leeway=LEEWAY,
                options={"require": ["iss", "sub", "aud", "iat", "exp"], "strict_aud": True},
            )
        except jwt.InvalidTokenError as error:
            raise next(
                (_refused(why, text) for kind, why, text in _REASONS if isinstance(error, kind)),
                _refused("TOKEN_MALFORMED", "cannot be read"),
            ) from None
        user = _user(claims, vouched.issuer, token)
        self._users.put(token, (user, claims["exp"] + LEEWAY, roots, vouched))
        return user

    def _vouched(self, x5c: Any, roots: bytes) -> _Vouched:
        """Who has signed, by a chain of certificates that the roots vouch for now."""
        if not isinstance(x5c, list) or not 0 < len(x5c) <= MAX_CHAIN:
            raise _refused("TOKEN_CHAIN", f"has no chain of 1 to {MAX_CHAIN} certificates")
        key = hashlib.sha256("\n".join(map(str, x5c)).encode() + b"\0" + roots).digest()
        found = self._chains.get(key)
        if found is None:
            self._chains.put(key, found := _verify(x5c, roots))
        self._check(found)
        return found

    def _check(self, vouched: _Vouched) -> None:
        if not vouched.begins - LEEWAY <= time.time() < vouched.ends:
            raise _refused("TOKEN_CHAIN", "has a certificate that has expired")
        if any(map(self._identity.is_revoked, vouched.certificates)):
            raise _refused("TOKEN_CHAIN", "has a certificate that was revoked")


def _verify(x5c: Sequence[Any], roots: bytes) -> _Vouched:
    try:
        chain = [x509.load_der_x509_certificate(base64.b64decode(each, validate=True))
                 for each in x5c]  # fmt: skip
        store = verification.Store(x509.load_pem_x509_certificates(roots))
        verifier = verification.PolicyBuilder().store(store).time(datetime.now(UTC))
        path = verifier.build_client_verifier().verify(chain[0], chain[1:]).chain
        issuer, key = spiffe_id(chain[0]), chain[0].public_key()
    except _UNREADABLE:
        raise _refused("TOKEN_CHAIN", "has no chain to one of the roots") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("TOKEN_CHAIN", "has a key that is not of P-256")
    return _Vouched(
        issuer,
        key,
        tuple(each.public_bytes(Encoding.PEM) for each in path[:-1]),
        max(each.not_valid_before_utc.timestamp() for each in path),
        min(each.not_valid_after_utc.timestamp() for each in path),
    )


def _user(claims: dict[str, Any], issuer: str, token: str) -> User:
    begins, ends = claims["iat"], claims["exp"]
    if not isinstance(begins, int | float) or not isinstance(ends, int | float):
        raise _refused("TOKEN_CLAIMS", "has an iat or exp that is no number")  # JWT takes "1"
    if ends - begins > MAX_LIFE:
        raise _refused("TOKEN_LIFE", f"lives for more than {MAX_LIFE:g} s")
    subject, roles = claims["sub"], claims.get("roles", [])
    named = [subject, *roles] if isinstance(roles, list) and len(roles) <= _ROLES else [None]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in named):
        raise _refused("TOKEN_CLAIMS", "has a sub or roles that are none")
    return User(subject, frozenset(roles), issuer, token)


def _refused(reason: str, what: str) -> Unauthenticated:
    return Unauthenticated(reason, f"the token in {USER_KEY} {what}")
