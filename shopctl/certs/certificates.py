"""Certificates and their keys, in memory: made, signed and read.

Leaves are X.509-SVIDs (SPIFFE, "X509-SVID", sections 2 to 4): one URI that is the identity, no
authority of their own. All keys are EC P-256, all signatures ECDSA with SHA-256. What a test needs
to be wrong (times, URIs, who signs) is an argument.
"""

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shopctl.certs import TRUST_DOMAIN, spiffe_id

SKEW: Final = timedelta(minutes=10)
"""How far clocks may be apart: certificates are valid from so long ago, but no longer than they
will be from now on."""

_ENCODING: Final = serialization.Encoding


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, and the intermediate ones between it and a root."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    """The certificate itself first; the root only if it is that."""

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that the key belongs to."""
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        """Text of `tls.crt`."""
        return b"".join(each.public_bytes(_ENCODING.PEM) for each in self.chain)

    @property
    def key_pem(self) -> bytes:
        """Text of `tls.key` (PKCS 8, not encrypted)."""
        kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(_ENCODING.PEM, kind, plain)

    @property
    def matches(self) -> bool:
        """Whether the key is the certificate's."""
        return self.key.public_key() == self.certificate.public_key()


def read(chain_pem: bytes, key_pem: bytes) -> Pair:
    """A pair as its files have it, whether it `matches` or not.

    Raises:
        ValueError: they cannot be read.
        AssertionError: the key is none of ours.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except TypeError as error:  # it is encrypted
        raise ValueError(str(error)) from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Pair(key, tuple(x509.load_pem_x509_certificates(chain_pem)))


def new_root(
    life: timedelta, now: datetime | None = None, trust_domain: str = TRUST_DOMAIN
) -> Pair:
    """A root, which signs itself and intermediate certificates."""
    return _sign(_unlike("root"), None, *_span(life, now), _authority(1, trust_domain))


def new_intermediate(
    root: Pair, life: timedelta, now: datetime | None = None, trust_domain: str = TRUST_DOMAIN
) -> Pair:
    """An intermediate certificate, which signs leaves and nothing else."""
    return _sign(_unlike("intermediate"), root, *_span(life, now), _authority(0, trust_domain))


def new_leaf(
    issuer: Pair | None,
    name: str,
    life: timedelta = timedelta(hours=24),
    now: datetime | None = None,
    *,
    uris: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    valid: tuple[datetime, datetime] | None = None,
    trust_domain: str = TRUST_DOMAIN,
) -> Pair:
    """The certificate of a service, for both ends of a connection.

    Args:
        issuer: who signs; None: its own key does.
        name: the service.
        life: from now on.
        now: None for the time that it is.
        uris: None for the one SPIFFE id.
        names: DNS names and IP addresses; None for the service's own and those of loopback.
        valid: from and until, in place of `life`.
        trust_domain: of the SPIFFE id.
    """
    if uris is None:
        uris = [spiffe_id(name, trust_domain)]
    if names is None:
        names = [name, f"{name}.{trust_domain}", "localhost", "127.0.0.1"]
    known: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    known += map(_dns_or_ip, names)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs=False), True),
        (x509.ExtendedKeyUsage(uses), False),
    ]
    if known:
        extensions.append((x509.SubjectAlternativeName(known), False))
    return _sign(name, issuer, *(valid or _span(life, now)), extensions)


def serial(certificate: x509.Certificate) -> str:
    """The number of a certificate as it is written everywhere: lower-case hex."""
    return f"{certificate.serial_number:x}"


def uris(certificate: x509.Certificate) -> list[str]:
    """All URIs that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def life(certificate: x509.Certificate) -> timedelta:
    """For how long it was made: the inverse of what makes it valid from a little before."""
    total = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return max(total / 2, total - SKEW)


def _unlike(name: str) -> str:
    """A name of its own: two of the same are one to whoever looks for an issuer."""
    return f"{name} {secrets.token_hex(4)}"


def _span(life: timedelta, now: datetime | None) -> tuple[datetime, datetime]:
    now = now or datetime.now(UTC)
    return now - min(SKEW, life), now + life


def _dns_or_ip(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _authority(below: int, trust_domain: str) -> list[tuple[x509.ExtensionType, bool]]:
    """Extensions of what may sign; `below`: how many that do, too, may stand below it."""
    own = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return [
        (x509.BasicConstraints(ca=True, path_length=below), True),
        (_key_usage(signs=True), True),
        (x509.SubjectAlternativeName([own]), False),
    ]


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(
    name: str,
    issuer: Pair | None,
    start: datetime,
    end: datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key if issuer is None else issuer.key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(63) | 1 << 63)  # always 16 digits
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    made = builder.sign(signer, hashes.SHA256())
    return Pair(key, (made, *_without_root(issuer)))


def _without_root(issuer: Pair | None) -> tuple[x509.Certificate, ...]:
    if issuer is None or issuer.certificate.issuer == issuer.certificate.subject:
        return ()
    return issuer.chain
