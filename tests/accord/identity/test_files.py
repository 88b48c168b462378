"""Files of an identity: what is taken of them, and what is done with those that are bad."""

import gc
import logging
import os
import threading
import time
from base64 import b64decode, encodebytes
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from random import Random
from typing import Final
from weakref import ref

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1

import accord
from accord import _files
from accord.identity import Identity, IdentityError
from accord.identity.bundle import SKEW, parse
from accord.identity.identity import LAYOUTS
from tests.accord.identity.authority import Authority, Leaf, put
from tests.support.telemetry import Metrics

ORDERS: Final = "spiffe://shop.internal/orders"
ROOT: Final = Authority()
CA: Final = ROOT.intermediate()
OTHER: Final = Authority()
GOOD: Final = CA.issue(ORDERS)
STRANGER: Final = OTHER.issue(ORDERS)


@pytest.mark.parametrize("names", LAYOUTS)
def test_layouts(names: tuple[str, ...], tmp_path: Path) -> None:
    """cert-manager's folder and spiffe-helper's are told by the names in them."""
    identity = Identity.from_folder(GOOD.write(tmp_path, names), trust_domains=("partner.example",))
    assert (identity.id, identity.trust_domain) == (ORDERS, "shop.internal")
    assert identity.trust_domains == {"shop.internal", "partner.example"}
    found = identity.bundle
    assert (found.certificate, found.key, found.roots) == (GOOD.certificate, GOOD.key, GOOD.roots)
    assert found.serial == GOOD.serial
    assert found.not_before < time.time() < found.not_after
    assert "PRIVATE" not in repr(found)


def test_from_the_environment(tmp_path: Path) -> None:
    """It is that of the folder which is named there, or there is none."""
    identity = Identity.from_environment({"MESH_IDENTITY": str(GOOD.write(tmp_path))})
    assert identity is not None
    assert identity.id == ORDERS
    assert Identity.from_environment({}) is None
    assert Identity.from_environment({"MESH_IDENTITY": ""}) is None


def _mismatch(folder: Path) -> None:
    put(folder / "tls.key", CA.issue(ORDERS).key)


def _unreadable(folder: Path) -> None:
    (folder / "tls.key").unlink()
    (folder / "tls.key").mkdir()


def _writes(leaf: Leaf) -> Callable[[Path], object]:
    return lambda folder: leaf.write(folder)


def _puts(name: str, text: bytes) -> Callable[[Path], object]:
    return lambda folder: put(folder / name, text)


BAD: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "broken certificate": (_puts("tls.crt", b"x" * 500), "tls.crt: cannot be read"),
    "broken key": (_puts("tls.key", b"-----BEGIN PRIVATE KEY-----\nAA"), "tls.key: cannot be read"),
    "broken roots": (_puts("ca.crt", b""), "ca.crt: cannot be read"),
    "half-written certificate": (_puts("tls.crt", GOOD.certificate[:400]), "tls.crt: cannot be"),
    "half-written chain": (_puts("tls.crt", GOOD.certificate[: len(GOOD.certificate) // 2 + 90]),
                           "tls.crt: "),
    "half-written key": (_puts("tls.key", GOOD.key[:90]), "tls.key: cannot be read"),
    "no file": (lambda folder: (folder / "tls.key").unlink(), "tls.key: No such file"),
    "unreadable": (_unreadable, "tls.key: Is a directory"),
    "key of another": (_mismatch, "tls.key: does not match the certificate"),
    "curve that gRPC has not": (_writes(CA.issue(ORDERS, curve=SECP521R1)), "none that gRPC takes"),
    "missing intermediate": (_writes(CA.issue(ORDERS, chained=False)), "does not lead to a root"),
    "wrong authority": (_writes(Leaf(STRANGER.certificate, STRANGER.key, GOOD.roots)),
                        "does not lead to a root"),
    "no SPIFFE id": (_writes(CA.issue()), "exactly one SPIFFE id, and names localhost"),
    "two SPIFFE ids": (_writes(CA.issue(ORDERS, "spiffe://shop.internal/b")), "exactly one"),
    "another URI": (_writes(CA.issue("https://shop.internal/orders")), "is no SPIFFE id"),
    "no path": (_writes(CA.issue("spiffe://shop.internal")), "is no SPIFFE id"),
    "expired": (_writes(CA.issue(ORDERS, begins=-120, ends=-1)), "tls.crt: has expired at 20"),
    "from the future": (_writes(CA.issue(ORDERS, begins=600)), "is the clock of this host slow"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_at_the_start(kind: str, tmp_path: Path) -> None:
    """One line says which file is wrong, and how."""
    break_it, text = BAD[kind]
    break_it(GOOD.write(tmp_path))
    with pytest.raises(IdentityError) as caught:
        Identity.from_folder(tmp_path)
    assert text in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", BAD)
def test_bad_later(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last good one stays, the problem is said and logged once, and goes when it is over."""
    break_it, text = BAD[kind]
    identity = Identity.from_folder(GOOD.write(tmp_path))
    identity.close()
    kept = identity.bundle
    break_it(tmp_path)
    identity.refresh()
    assert identity.problem is None  # it may be a swap
    for _ in range(3):
        identity.refresh()
        assert text in str(identity.problem)
    assert identity.bundle is kept
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    if (tmp_path / "tls.key").is_dir():
        (tmp_path / "tls.key").rmdir()
    new = CA.issue(ORDERS)
    new.write(tmp_path)
    identity.refresh()
    assert (identity.problem, identity.bundle.serial) == (None, new.serial)


def _broken(text: bytes, random: Random) -> bytes:
    """PEM of which the end is missing, or some bytes of what is in it are others."""
    if random.random() < 0.3:
        return text[: random.randrange(len(text))]
    begin, *lines = text.split(b"-----END")[0].splitlines()
    found = bytearray(b64decode(b"".join(lines)))
    for _ in range(random.randrange(1, 4)):
        found[random.randrange(len(found))] = random.randrange(256)
    return begin + b"\n" + encodebytes(found) + begin.replace(b"BEGIN", b"END") + b"\n"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_files_say(seed: int) -> None:
    """It is a good identity, or an IdentityError of one line; nothing else comes of it."""
    random, refusals = Random(seed), list[str]()
    for _ in range(100):
        texts = [GOOD.certificate, GOOD.key, GOOD.roots]
        part = random.randrange(3)
        texts[part] = _broken(texts[part], random)
        try:
            parse(*texts)
        except IdentityError as error:
            refusals.append(str(error))
    assert len(refusals) > 80
    assert not any("\n" in refusal for refusal in refusals)


def test_a_bad_deny_list(tmp_path: Path) -> None:
    """What was denied stays denied, and certificates are renewed all the same."""
    put(tmp_path / "revoked.txt", b"# stolen\n" + GOOD.serial.upper().encode() + b"  # in June\n\n")
    identity = Identity.from_folder(GOOD.write(tmp_path), revoked=tmp_path / "revoked.txt")
    identity.close()
    assert identity.is_revoked(GOOD.certificate)
    assert not identity.is_revoked(STRANGER.certificate)
    new = CA.issue(ORDERS)
    new.write(tmp_path)
    for bad, text in ((b"12\nnone\n", "line 2 is no serial number"), (None, "deny list has gone")):
        (tmp_path / "revoked.txt").unlink() if bad is None else put(tmp_path / "revoked.txt", bad)
        identity.refresh()
        identity.refresh()
        assert text in str(identity.problem)
        assert identity.is_revoked(GOOD.certificate)
    assert identity.bundle.serial == new.serial
    put(tmp_path / "revoked.txt", b"")
    identity.refresh()
    assert identity.problem is None
    assert not identity.is_revoked(GOOD.certificate)


def test_a_deny_list_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is empty, and obeyed within a second when it comes."""
    identity = Identity.from_folder(GOOD.write(tmp_path), revoked=tmp_path / "revoked.txt")
    assert not identity.is_revoked(GOOD.certificate)
    put(tmp_path / "revoked.txt", GOOD.serial.encode())
    _until(lambda: identity.is_revoked(GOOD.certificate))
    assert _files.INTERVAL <= 0.5
    identity.close()


def _until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_small_differences_of_clocks(tmp_path: Path) -> None:
    """The first certificate may begin a minute from now; a later one waits, if it can."""
    clock = time.time()
    GOOD.write(tmp_path)
    files = [tmp_path / name for name in LAYOUTS[0]]
    CA.issue(ORDERS, begins=SKEW - 10).write(tmp_path)
    identity = Identity(*files, clock=lambda: clock)
    identity.close()
    first = identity.bundle
    clock += SKEW
    CA.issue(ORDERS, begins=SKEW + 30).write(tmp_path)
    identity.refresh()
    identity.refresh()
    assert "is the clock of this host slow" in str(identity.problem)
    assert identity.bundle is first
    clock += 31
    identity.refresh()
    assert identity.problem is None
    assert identity.bundle is not first


def test_a_certificate_that_nobody_renews(tmp_path: Path) -> None:
    """Once it has expired that is the problem."""
    clock = time.time()
    GOOD.write(tmp_path)
    identity = Identity(*(tmp_path / name for name in LAYOUTS[0]), clock=lambda: clock)
    identity.close()
    clock = identity.bundle.not_after
    identity.refresh()
    identity.refresh()
    assert "tls.crt: has expired at" in str(identity.problem)


def test_an_identity_stays_itself(tmp_path: Path) -> None:
    """A process does not become another one by a file."""
    identity = Identity.from_folder(GOOD.write(tmp_path))
    identity.close()
    CA.issue("spiffe://shop.internal/payments").write(tmp_path)
    identity.refresh()
    identity.refresh()
    assert "is of spiffe://shop.internal/payments, and no more of" in str(identity.problem)
    assert identity.id == identity.bundle.id == ORDERS


@pytest.mark.parametrize("swap", [Leaf.write, Leaf.link])
def test_swaps_never_mix(swap: Callable[[Leaf, Path], Path], tmp_path: Path) -> None:
    """Whenever the files are read during a hundred swaps, key and certificate are of one leaf."""
    leaves = [CA.issue(ORDERS) for _ in range(100)]
    pairs = {leaf.certificate: leaf.key for leaf in leaves}
    identity = Identity.from_folder(swap(leaves[0], tmp_path))
    identity.close()
    writer = threading.Thread(target=lambda: [swap(leaf, tmp_path) for leaf in leaves])
    writer.start()
    seen = set()
    while writer.is_alive():
        identity.refresh()
        assert identity.bundle.key == pairs[identity.bundle.certificate]
        seen.add(identity.bundle.serial)
    writer.join()
    identity.refresh()
    assert identity.bundle.serial == leaves[-1].serial
    assert len(seen) > 2


def test_a_start_during_a_swap(tmp_path: Path) -> None:
    """Files that do not fit are read again for as long as somebody is changing them."""
    new = CA.issue(ORDERS)
    put(new.write(tmp_path) / "tls.key", GOOD.key)

    def swap() -> None:
        put(tmp_path / "ca.crt", new.roots + ROOT.roots)
        time.sleep(0.1)
        put(tmp_path / "tls.key", new.key)

    swapping = threading.Timer(0.05, swap)
    swapping.start()
    assert Identity.from_folder(tmp_path).bundle.serial == new.serial
    swapping.join()


def test_files_are_watched(tmp_path: Path) -> None:
    """A new certificate is taken soon, without anybody asking; a forgotten one rests."""
    others = set(_files._looks)
    identity = Identity.from_folder(GOOD.write(tmp_path))
    began = time.monotonic()
    new = CA.issue(ORDERS)
    new.write(tmp_path)
    while identity.bundle.serial != new.serial:
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    gone = ref(identity)
    del identity

    def forgotten() -> bool:
        gc.collect(0)
        return gone() is None and not set(_files._looks) - others

    _until(forgotten)


def test_one_thread_watches_all_files(caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is said and leaves the others theirs; the thread ends with the last."""
    spec = find_spec("accord._files")
    assert spec is not None
    assert spec.loader is not None
    files = module_from_spec(spec)  # one that nobody else has
    spec.loader.exec_module(files)
    over, looks = threading.Event(), 0

    def failing() -> bool:
        if over.is_set():
            return False
        raise RuntimeError("broken")

    def counting() -> bool:
        nonlocal looks
        looks += 1
        return not over.is_set()

    for _ in range(2):
        files.often(failing)
        thread = files._thread
        files.often(counting)
        assert files._thread is thread
        seen = looks
        _until(lambda seen=seen: looks > seen + 1)  # type: ignore[misc]  # mypy infers no default
        assert "files could not be looked at" in caplog.text
        over.set()
        _until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]  # the same
        over.clear()


def test_a_key_that_everybody_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It works, and is warned of."""
    GOOD.write(tmp_path)
    Identity.from_folder(tmp_path).close()
    assert not caplog.records
    os.chmod(tmp_path / "tls.key", 0o644)
    Identity.from_folder(tmp_path).close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "everybody on this host can read the key" in record.getMessage()


def test_what_is_asked_for_wrongly(tmp_path: Path) -> None:
    """A folder without files, or a trust domain that is none, is named."""
    with pytest.raises(IdentityError, match=r"neither tls\.crt nor svid\.pem"):
        Identity.from_folder(tmp_path)
    with pytest.raises(IdentityError, match="No such file"):
        Identity.from_folder(tmp_path / "none")
    GOOD.write(tmp_path)
    with pytest.raises(IdentityError, match="'spiffe://x' is none"):
        Identity.from_folder(tmp_path, trust_domains=["spiffe://x"])


def test_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds to the end of the certificate in use, and whether the files are bad."""
    meter, clock = Metrics(monkeypatch), time.time()
    GOOD.write(tmp_path)
    identity = Identity(*(tmp_path / name for name in LAYOUTS[0]), clock=lambda: clock)
    identity.close()
    mesh = accord.Mesh("orders", identity=identity)

    def read(name: str) -> float:
        (point,) = meter.collect()[f"accord.identity.{name}"].values()
        return float(point.value)

    clock = mesh.identity.bundle.not_after - 30 if mesh.identity else 0.0
    assert (read("expiry"), read("problem")) == (30, 0)
    put(tmp_path / "tls.key", b"")
    identity.refresh()
    identity.refresh()
    assert (read("expiry"), read("problem")) == (30, 1)
