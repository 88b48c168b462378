"""A certificate authority for tests, and folders of its certificates as others write them."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY: Final = 86_400.0
_numbers = count()


@dataclass(frozen=True)
class Leaf:
    """A certificate with its key and the roots that its owner trusts, in PEM."""

    certificate: bytes
    key: bytes
    roots: bytes

    @cached_property
    def serial(self) -> str:
        return f"{x509.load_pem_x509_certificate(self.certificate).serial_number:x}"

    @cached_property
    def not_after(self) -> float:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc.timestamp()

    def trusting(self, *others: "Authority") -> "Leaf":
        """The same, with more roots."""
        return Leaf(self.certificate, self.key, self.roots + b"".join(x.roots for x in others))

    def write(self, folder: Path, names: Sequence[str] = ("tls.crt", "tls.key", "ca.crt")) -> Path:
        """Swap the files of a folder, each at once."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(names, (self.certificate, self.key, self.roots), strict=True):
            put(folder / name, text)
        return folder

    def link(self, folder: Path) -> Path:
        """Swap the files of a folder all at once, as Kubernetes does: by a link."""
        version = self.write(folder / f"..{next(_numbers)}")
        new = folder / "..new"
        new.symlink_to(version.name)
        new.rename(folder / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        return folder


def put(file: Path, text: bytes) -> None:
    """Replace a file at once."""
    new = file.with_name(f".{file.name}.{next(_numbers)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as opened:
        opened.write(text)
    new.rename(file)


class Authority:
    """A root, or what another authority has certified."""

    def __init__(self, parent: "Authority | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _name(f"authority {next(_numbers)}")
        self._parent = parent
        issuer = parent or self
        self.certificate = (
            issuer._begin(self.subject, self.key.public_key(), -DAY, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key, SHA256())
        )

    def intermediate(self) -> "Authority":
        return Authority(self)

    @property
    def roots(self) -> bytes:
        return self._parent.roots if self._parent else _pem(self.certificate)

    def issue(
        self,
        *names: str,
        dns: Sequence[str] = ("localhost",),
        begins: float = -60.0,
        ends: float = DAY,
        chained: bool = True,
        self_signed: bool = False,
        curve: type[ec.EllipticCurve] = ec.SECP256R1,
    ) -> Leaf:
        """A certificate for these URIs; `begins` and `ends`: seconds from now."""
        key = ec.generate_private_key(curve())
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(x) for x in names]
        alternatives += [*map(x509.DNSName, dns), x509.IPAddress(IPv4Address("127.0.0.1"))]
        subject = _name("leaf")
        signer = key if self_signed else self.key
        certificate = (
            self._begin(
                subject, key.public_key(), begins, ends, subject if self_signed else self.subject
            )
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(signer, SHA256())
        )
        chain = _pem(certificate)
        if self._parent is not None and chained:
            chain += _pem(self.certificate)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Leaf(chain, secret, self.roots)

    def _begin(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        begins: float,
        ends: float,
        issuer: x509.Name | None = None,
    ) -> x509.CertificateBuilder:
        now = time.time()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(now + begins, UTC))
            .not_valid_after(datetime.fromtimestamp(now + ends, UTC))
        )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
