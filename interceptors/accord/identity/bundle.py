"""What the files of an identity say, checked before anybody uses it.

gRPC says nothing of a key that does not match, nor of garbage: every handshake fails, without a
word of why.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError as error:
    raise ImportError(
        "accord.identity needs cryptography: pip install 'accord[identity]'"
    ) from error

SKEW: Final = 60.0
"""Seconds by which a certificate may begin in the future: clocks of two hosts differ a little.

OpenSSL and BoringSSL know no such tolerance, so it is not used while there is a certificate that is
valid without it.
"""

_CAUSES: Final = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for what it cannot read, or that does not fit."""

_CURVES: Final = ("secp256r1", "secp384r1")

DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
"""The name of a trust domain."""

SPIFFE_ID: Final = re.compile(r"spiffe://([a-z0-9._-]+)(/[A-Za-z0-9._-]+)+")
"""Source: SPIFFE-ID, 2."""


class IdentityError(ValueError):
    """What is wrong with an identity's files, in one line."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A certificate with its key and those that it trusts, all of which fit together."""

    certificate: bytes
    """PEM: the leaf, then the intermediates that lead to a root."""
    key: bytes = field(repr=False)
    """PEM, of the leaf."""
    roots: bytes
    """PEM: whose certificates are accepted of others."""
    id: str
    """The SPIFFE id of the leaf: "spiffe://shop.internal/orders"."""
    serial: str
    """Of the leaf, in lower-case hexadecimal digits, as a deny list has it."""
    not_before: float
    """POSIX seconds; the chain is valid from then on."""
    not_after: float
    """POSIX seconds; the first certificate of the chain that ends, ends then."""

    @property
    def trust_domain(self) -> str:
        """That of its id: "shop.internal"."""
        return self.id.split("/")[2]


def parse(certificate: bytes, key: bytes, roots: bytes) -> Bundle:
    """Read PEM texts and check that they fit together. Times are not looked at: see `check_time`.

    Raises IdentityError; its text begins with the part that is wrong, "certificate: ...".
    """
    chain, trusted = _certificates("certificate", certificate), _certificates("roots", roots)
    with _readable("key"):
        private = load_pem_private_key(key, None)
    with _readable("certificate"):
        matches = private.public_key() == chain[0].public_key()
    if not matches:
        raise IdentityError("key: does not match the certificate")
    curve = private.curve.name if isinstance(private, EllipticCurvePrivateKey) else ""
    if curve not in _CURVES and not isinstance(private, RSAPrivateKey):
        raise IdentityError("key: is none that gRPC takes: ECDSA P-256 or P-384, or RSA")
    for number, (issued, issuer) in enumerate(pairwise(chain), 2):
        if not _issued(issued, issuer):
            raise IdentityError(f"certificate: number {number} in it has not issued the one before")
    if chain[-1] not in trusted and not any(_issued(chain[-1], root) for root in trusted):
        raise IdentityError("certificate: does not lead to a root")
    name = spiffe_id(chain[0])
    with _readable("certificate"):
        begins = max(each.not_valid_before_utc.timestamp() for each in chain)
        ends = min(each.not_valid_after_utc.timestamp() for each in chain)
        return Bundle(certificate, key, roots, name, f"{chain[0].serial_number:x}", begins, ends)


def check_time(bundle: Bundle, now: float, skew: float) -> None:
    """Raise IdentityError if a bundle has ended, or begins more than `skew` seconds from `now`."""
    if now >= bundle.not_after:
        raise IdentityError(f"certificate: has expired at {utc(bundle.not_after)}")
    if now + skew < bundle.not_before:
        raise IdentityError(
            f"certificate: is from the future, valid only from {utc(bundle.not_before)}: is the"
            " clock of this host slow?"
        )


def spiffe_id(leaf: x509.Certificate) -> str:
    """The SPIFFE id of a certificate: its one alternative name that is a URI.

    Raises IdentityError. Source: X.509-SVID, 2 and 5.2.
    """
    with _readable("certificate"):
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = x509.SubjectAlternativeName([])
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        others = names.get_values_for_type(x509.DNSName)
    if len(uris) != 1:
        found = ", ".join(uris or others) or "nothing"
        raise IdentityError(f"certificate: needs exactly one SPIFFE id, and names {found}")
    if not SPIFFE_ID.fullmatch(uris[0]):
        raise IdentityError(f"certificate: {uris[0]!r} is no SPIFFE id: spiffe://DOMAIN/NAME")
    return uris[0]


@lru_cache(maxsize=4096)
def serials_and_end(certificates: bytes) -> tuple[frozenset[int], float]:
    """Serial numbers of certificates in PEM, and when the first ends. Raises IdentityError."""
    found = _certificates("certificate", certificates)
    with _readable("certificate"):
        ends = min(each.not_valid_after_utc.timestamp() for each in found)
        return frozenset(each.serial_number for each in found), ends


def _certificates(part: str, text: bytes) -> Sequence[x509.Certificate]:
    with _readable(part):
        return x509.load_pem_x509_certificates(text)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except _CAUSES:
        return False
    return True


@contextmanager
def _readable(part: str) -> Iterator[None]:
    try:
        yield
    except _CAUSES as error:  # the text may go on and on
        text = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise IdentityError(f"{part}: cannot be read: {text}") from None


def utc(seconds: float) -> str:
    """POSIX seconds as a person reads them."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
