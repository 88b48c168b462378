"""What `shopctl certs show` says of each certificate."""

from dataclasses import dataclass

from cryptography import x509

from shopctl.certs.authority import Authority
from shopctl.certs.certificates import serial, uris


@dataclass(frozen=True, slots=True)
class Row:
    """One certificate; times are Unix time, `left` is seconds."""

    name: str
    spiffe_id: str
    serial: str
    not_before: float
    not_after: float
    left: float
    issuer: str
    """The name of the certificate that signed it, and 8 digits of its own."""
    state: str
    """`valid`, `due` (to be renewed), `revoked`, `expired`, `future`, or `broken`: its files."""


def rows(authority: Authority) -> list[Row]:
    """Every root that is trusted, the intermediate certificate, and all leaves by name."""
    revoked = authority.revoked()
    found = [_row("root", root, revoked, authority) for root in authority.roots()]
    for name in ("intermediate", *authority.names()):
        pair = authority.pair(name)
        if pair is None:
            found.append(Row(name, "", "", 0.0, 0.0, 0.0, "", "broken"))
        else:
            found.append(_row(name, pair.certificate, revoked, authority))
    return found


def _row(name: str, certificate: x509.Certificate, revoked: set[str], authority: Authority) -> Row:
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    now = authority.clock()
    if serial(certificate) in revoked:
        state = "revoked"
    elif end <= now:
        state = "expired"
    elif start > now:
        state = "future"
    else:
        state = "due" if authority.due(certificate) else "valid"
    issuer = certificate.issuer.rfc4514_string().removeprefix("CN=")
    identity = ", ".join(uris(certificate))
    left = round(max(0.0, end - now), 1)
    return Row(name, identity, serial(certificate), start, end, left, issuer, state)
