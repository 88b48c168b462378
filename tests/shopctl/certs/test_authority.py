"""The authority in a folder: what it makes, what it renews, and how its root is replaced."""

import os
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from shopctl.certs import files, listing
from shopctl.certs.authority import SETTLE, Authority
from shopctl.certs.certificates import Pair, life, read, serial, uris
from shopctl.errors import CommandError
from tests.support.bad_certificates import bad_certificates

NAMES = ("orders", "payments", "operator")
DAY = timedelta(days=1)


class Clock:
    """The time that it is, and a little more."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def pass_(self, by: timedelta) -> None:
        self.ahead += by.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    found = Authority(tmp_path / "certs", clock)
    found.prepare(NAMES)
    return found


def leaf(authority: Authority, name: str = "orders") -> Pair:
    found = authority.pair(name)
    assert found is not None
    return found


def roots_of(authority: Authority, name: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((authority.folder / name / files.ROOTS).read_bytes())


def verify(pair: Pair, roots: list[x509.Certificate]) -> None:
    """As a server does with a client's certificate; raises when it is not to be trusted."""
    policy = PolicyBuilder().store(Store(roots)).build_client_verifier()
    policy.verify(pair.certificate, list(pair.chain[1:]))


def test_a_leaf_has_one_id_its_names_and_a_chain_to_the_root(authority: Authority) -> None:
    """What is issued is an X.509-SVID for both ends of a connection."""
    pair = leaf(authority)
    assert uris(pair.certificate) == ["spiffe://shop.internal/orders"]
    names = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "orders",
        "orders.shop.internal",
        "localhost",
    ]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1"]
    assert life(pair.certificate) == DAY
    assert pair.certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=9)
    verify(pair, roots_of(authority, "payments"))


def test_only_their_owner_may_read_keys(authority: Authority) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    for folder, _, names in os.walk(authority.folder):
        assert os.stat(folder).st_mode & 0o777 == 0o700
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o600


def test_what_is_there_is_left_alone_and_what_is_broken_is_made_again(authority: Authority) -> None:
    """A pair that does not match, or half a file, is replaced; all others stay."""
    payments = serial(leaf(authority, "payments").certificate)
    files.write(authority.folder / "orders", tls_key=leaf(authority, "payments").key_pem)
    (authority.folder / "operator" / files.CERTIFICATE).write_bytes(b"-----BEGIN CERT")
    assert listing.rows(authority)[3].state == "broken"
    assert sorted(authority.prepare(NAMES)) == ["operator", "orders"]
    assert serial(leaf(authority, "payments").certificate) == payments
    assert authority.prepare(NAMES) == []


def test_a_leaf_is_renewed_at_two_thirds_of_its_life(authority: Authority, clock: Clock) -> None:
    """Not before, for as long as it was issued, and the intermediate certificate alike."""
    authority.issue(["orders"], timedelta(hours=6))
    clock.pass_(timedelta(hours=3, minutes=59))
    assert authority.renew_due() == []
    assert 0 < authority.next_due() - clock() <= 60
    clock.pass_(timedelta(minutes=2))
    assert authority.renew_due() == ["orders"]
    assert life(leaf(authority).certificate) == timedelta(hours=6)
    clock.pass_(timedelta(days=20))
    assert authority.renew_due()[0] == "intermediate"


def test_the_roots_key_may_lie_elsewhere(authority: Authority, clock: Clock) -> None:
    """Leaves are renewed without it; a new intermediate certificate says that it needs it."""
    (authority.folder / "root" / files.KEY).rename(authority.folder.parent / "usb-stick")
    clock.pass_(timedelta(hours=17))
    assert sorted(authority.renew_due()) == sorted(NAMES)
    clock.pass_(timedelta(days=20))
    old = serial(leaf(authority).certificate)
    with pytest.raises(CommandError, match="needs the root's key at"):
        authority.renew_due()
    assert serial(leaf(authority).certificate) != old


def test_a_root_is_replaced_in_stages(authority: Authority, clock: Clock) -> None:
    """At every moment each leaf is trusted by all; the old root goes when nothing needs it."""
    old, leaves = roots_of(authority, "orders"), [leaf(authority)]

    def all_trust_each_other() -> None:
        for name in NAMES:
            for pair in leaves:
                verify(pair, roots_of(authority, name))

    authority.announce_root()
    assert len(roots_of(authority, "orders")) == 2
    assert authority.renew_due() == []  # nobody may have read it yet
    authority.issue(["payments"], timedelta(seconds=2))
    assert authority.next_due() < clock() + 1.5  # what is due meanwhile does not wait for that
    authority.issue(["payments"], DAY)
    with pytest.raises(CommandError, match="on its way already"):
        authority.announce_root()
    all_trust_each_other()
    clock.pass_(timedelta(seconds=SETTLE + 1))
    assert authority.renew_due() == ["intermediate", *sorted(NAMES)]
    leaves.append(leaf(authority))
    all_trust_each_other()
    assert old[0] in roots_of(authority, "payments")
    clock.pass_(timedelta(hours=24))
    assert authority.renew_due()[-1] == "the old root"
    for name in NAMES:
        assert len(roots_of(authority, name)) == 1
        assert old[0] not in roots_of(authority, name)


def test_revoked_stays_out_until_somebody_says_otherwise(
    authority: Authority, clock: Clock
) -> None:
    """By name all leaves that are valid, by serial one; nothing renews a revoked leaf by itself."""
    first = serial(leaf(authority).certificate)
    authority.issue(["orders"])
    second = serial(leaf(authority).certificate)
    assert authority.revoke("orders") == [first, second]
    assert authority.revoke(first) == [first]
    assert authority.revoked() >= {first, second}
    clock.pass_(timedelta(hours=17))
    assert "orders" not in authority.renew_due()
    authority.renew_intermediate()
    assert serial(leaf(authority).certificate) == second
    authority.issue(["orders"])
    assert listing.rows(authority)[3].state == "valid"
    with pytest.raises(CommandError, match="no valid certificate"):
        authority.revoke("nobody")


@pytest.mark.parametrize("name", ["", "root", "../x", "Ä", "a_b", "a" * 64])
def test_a_name_that_is_none_is_refused(authority: Authority, name: str) -> None:
    """Nothing is written where no identity belongs."""
    with pytest.raises(CommandError, match="no name of a service"):
        authority.issue([name])


def test_a_leaf_does_not_outlive_what_signs_it(authority: Authority) -> None:
    """A life beyond a third of the intermediate certificate's is refused."""
    with pytest.raises(CommandError, match=r"9 days.* at most"):
        authority.issue(["orders"], timedelta(days=10))


def test_somebody_elses_certificates_are_left_alone(tmp_path: Path) -> None:
    """A folder with certificates and without a root of ours is another authority's."""
    authority = Authority(tmp_path)
    files.write(tmp_path / "orders", svid_pem=b"x")
    assert authority.foreign
    assert not authority.exists


def test_whoever_reads_meanwhile_meets_a_whole_pair(authority: Authority) -> None:
    """A reader that tries again finds key and certificate that match; no file is half there."""
    folder = authority.folder / "orders"
    writer = (
        "import sys; from pathlib import Path; from shopctl.certs.authority import Authority\n"
        "for _ in range(40): Authority(Path(sys.argv[1])).issue(['orders'])"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(authority.folder)])
    seen, matched = set(), time.monotonic()
    while process.poll() is None:
        pair = read((folder / files.CERTIFICATE).read_bytes(), (folder / files.KEY).read_bytes())
        matched = time.monotonic() if pair.matches else matched
        assert time.monotonic() - matched < 1  # as long as the writer is not given the processor
        seen.add(serial(pair.certificate))
    assert process.returncode == 0
    assert len(seen) > 5


def test_every_kind_of_bad_certificate_is_what_it_says(tmp_path: Path) -> None:
    """What verification by time and authority refuses, it refuses; the rest only ids tell."""
    bad = bad_certificates(tmp_path)
    refused = set()
    for kind, folder in bad.folders.items():
        pair = read((folder / files.CERTIFICATE).read_bytes(), (folder / files.KEY).read_bytes())
        try:
            verify(pair, roots_of(bad.authority, "orders"))
        except x509.verification.VerificationError:
            refused.add(kind)
    by_id = {"two-ids", "dns-only", "wrong-trust-domain", "revoked", "key-mismatch"}
    assert refused - by_id == {"expired", "future", "wrong-ca", "self-signed", "no-intermediate"}
    context, folder = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), bad.folders["key-mismatch"]
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
