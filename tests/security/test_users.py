"""The token of an end user: what is believed, and how everything else is refused."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from accord import Unauthenticated
from accord.identity import Identity, users
from accord.identity.users import ISSUERS, MAX_BYTES, UserTokens, issue
from shopctl.certs import files
from shopctl.certs.authority import Authority
from shopctl.certs.certificates import new_leaf, serial
from tests.support.bad_certificates import Bad, bad_certificates

CUSTOMER: Final = "0198c2d4-1111-7000-8000-000000000001"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Bad:
    """The edge's certificates, and those of others who would like to be it."""
    found = bad_certificates(tmp_path_factory.mktemp("users"), "edge")
    found.authority.prepare(["console", "operator", "payments", "orders"])
    return found


@pytest.fixture
def orders(world: Bad) -> Iterator[Identity]:
    """The identity of who verifies."""
    folder = world.authority.folder
    identity = Identity.from_folder(folder / "orders", revoked=folder / "revoked.txt")
    yield identity
    identity.close()


class Issuer:
    """Whoever signs tokens, with whatever it likes in them."""

    def __init__(self, folder: Path) -> None:
        chain = x509.load_pem_x509_certificates((folder / "tls.crt").read_bytes())
        self.x5c = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]
        self.key = (folder / "tls.key").read_bytes()

    def token(
        self,
        *,
        key: Any = None,
        alg: str = "ES256",
        x5c: Any = None,
        life: int = 60,
        **changes: Any,
    ) -> str:
        now = int(time.time())
        claims = {
            "iss": "spiffe://shop.internal/edge",
            "sub": CUSTOMER,
            "aud": "shop.internal",
            "iat": now,
            "exp": now + life,
            "roles": ["customer"],
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        headers = {"x5c": self.x5c if x5c is None else x5c}
        return jwt.encode(kept, key or self.key, alg, headers=headers)


@pytest.fixture
def edge(world: Bad) -> Issuer:
    return Issuer(world.authority.folder / "edge")


def test_what_is_believed(world: Bad, orders: Identity) -> None:
    """The edge, the console and the operator say for whom they call; the token tells others."""
    for name in ISSUERS:
        bundle = Identity.from_folder(world.authority.folder / name).bundle
        token = issue(bundle, CUSTOMER, ["customer"])
        user = UserTokens(orders).read(token)
        assert (user.id, user.roles) == (CUSTOMER, frozenset({"customer"}))
        assert (user.issuer, user.token) == (f"spiffe://shop.internal/{name}", token)
        assert token not in repr(user)


def _unsigned(edge: Issuer) -> str:
    return edge.token().rpartition(".")[0] + "."


def _none(edge: Issuer) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "x5c": edge.x5c}).encode())
    return f"{head.decode().rstrip('=')}.{edge.token().split('.')[1]}."


def _of_another_version(edge: Issuer) -> str:
    leaf = base64.b64decode(edge.x5c[0]).replace(
        b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x28", 1
    )
    return edge.token(x5c=[base64.b64encode(leaf).decode(), *edge.x5c[1:]])


REFUSED: Final[list[tuple[str, str, Callable[[Issuer], Any]]]] = [
    ("expired", "TOKEN_EXPIRED", lambda e: e.token(iat=int(time.time()) - 100, life=-20)),
    ("future", "TOKEN_NOT_YET_VALID", lambda e: e.token(iat=int(time.time()) + 30)),
    ("unsigned", "TOKEN_SIGNATURE", _unsigned),
    ("alg none", "TOKEN_ALGORITHM", _none),
    ("alg HS256", "TOKEN_ALGORITHM", lambda e: e.token(key="k" * 32, alg="HS256")),
    ("wrong audience", "TOKEN_AUDIENCE", lambda e: e.token(aud="evil")),
    ("two audiences", "TOKEN_AUDIENCE", lambda e: e.token(aud=["shop.internal", "evil"])),
    ("wrong issuer", "TOKEN_ISSUER", lambda e: e.token(iss="spiffe://shop.internal/operator")),
    ("life over 60 s", "TOKEN_LIFE", lambda e: e.token(life=61)),
    (
        "key mismatch",
        "TOKEN_SIGNATURE",
        lambda e: e.token(key=ec.generate_private_key(ec.SECP256R1())),
    ),
    ("no chain", "TOKEN_CHAIN", lambda e: e.token(x5c=[])),
    ("chain of text", "TOKEN_CHAIN", lambda e: e.token(x5c=["certificate"])),
    ("chain that is none", "TOKEN_CHAIN", lambda e: e.token(x5c="AAAA")),
    ("chain of numbers", "TOKEN_CHAIN", lambda e: e.token(x5c=[1, 2])),
    ("a version that X.509 has not", "TOKEN_CHAIN", _of_another_version),
    ("no intermediate", "TOKEN_CHAIN", lambda e: e.token(x5c=e.x5c[:1])),
    ("no subject", "TOKEN_CLAIMS", lambda e: e.token(sub=None)),
    ("no expiry", "TOKEN_CLAIMS", lambda e: e.token(exp=None)),
    ("an expiry in quotes", "TOKEN_CLAIMS", lambda e: e.token(exp=str(int(time.time()) + 60))),
    ("a beginning in quotes", "TOKEN_CLAIMS", lambda e: e.token(iat=str(int(time.time())))),
    ("a subject of two lines", "TOKEN_CLAIMS", lambda e: e.token(sub="a\nb")),
    ("a role that is none", "TOKEN_CLAIMS", lambda e: e.token(roles=[{}])),
    ("garbage", "TOKEN_MALFORMED", lambda e: "garbage"),
    ("three dots", "TOKEN_MALFORMED", lambda e: "a.b.c"),
    ("bytes", "TOKEN_MALFORMED", lambda e: b"\xff\xfe"),
    ("64 kB", "TOKEN_MALFORMED", lambda e: "a" * 65_536),
    ("not ASCII", "TOKEN_MALFORMED", lambda e: "ä.b.c"),
]


@pytest.mark.parametrize(
    ("reason", "make"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_refused(
    orders: Identity, edge: Issuer, reason: str, make: Callable[[Issuer], Any]
) -> None:
    """A token that is wrong in one way is UNAUTHENTICATED, with that as the reason."""
    token = make(edge)
    with pytest.raises(Unauthenticated) as caught:
        UserTokens(orders).read(token)
    assert (caught.value.reason, caught.value.code) == (reason, grpc.StatusCode.UNAUTHENTICATED)
    assert str(token) not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "TOKEN_CHAIN"),
        ("future", "TOKEN_CHAIN"),
        ("wrong-ca", "TOKEN_CHAIN"),
        ("self-signed", "TOKEN_CHAIN"),
        ("no-intermediate", "TOKEN_CHAIN"),
        ("two-ids", "TOKEN_CHAIN"),
        ("dns-only", "TOKEN_CHAIN"),
        ("revoked", "TOKEN_CHAIN"),
        ("wrong-trust-domain", "TOKEN_ISSUER"),
        ("key-mismatch", "TOKEN_SIGNATURE"),
    ],
)
def test_certificates_that_vouch_for_nothing(
    world: Bad, orders: Identity, kind: str, reason: str
) -> None:
    """Who has no good certificate of an issuer's cannot say for whom it calls."""
    with pytest.raises(Unauthenticated) as caught:
        UserTokens(orders).read(Issuer(world.folders[kind]).token())
    assert caught.value.reason == reason


def test_a_service_says_for_whom_nobody_calls(world: Bad, orders: Identity) -> None:
    """A service's own good certificate is not enough: it is none of those that issue tokens."""
    payments = Issuer(world.authority.folder / "payments")
    for claimed in ("payments", "edge"):
        with pytest.raises(Unauthenticated) as caught:
            UserTokens(orders).read(payments.token(iss=f"spiffe://shop.internal/{claimed}"))
        assert caught.value.reason == "TOKEN_ISSUER"


def test_a_little_skew(orders: Identity, edge: Issuer) -> None:
    """Clocks that differ by a few seconds are no reason to refuse."""
    ahead = edge.token(iat=int(time.time()) + 3)
    late = edge.token(iat=int(time.time()) - 30, life=-3)
    for token in (ahead, late):
        assert UserTokens(orders).read(token).id == CUSTOMER


def test_chains_are_verified_once(
    orders: Identity, world: Bad, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A chain's verification is remembered, boundedly, and ends with a revocation."""
    verified: list[Any] = []
    verify = users._verify

    def noted(*arguments: Any) -> Any:
        verified.append(arguments)
        return verify(*arguments)

    monkeypatch.setattr(users, "_verify", noted)
    monkeypatch.setattr(users, "_RECENT", 2)
    authority: Authority = world.authority
    signer = authority.pair("intermediate")
    assert signer is not None
    issuers = []
    for number in range(3):
        pair = new_leaf(signer, "edge")
        files.write_pair(tmp_path / str(number), pair)
        issuers.append((Issuer(tmp_path / str(number)), serial(pair.certificate)))
    tokens = UserTokens(orders)
    for issuer, _ in issuers * 2:
        for _ in range(5):
            tokens.read(issuer.token())
    assert len(verified) == 6
    assert len(tokens._chains._kept) == len(tokens._users._kept) == 2
    text = (authority.folder / "revoked.txt").read_text()
    files.write(authority.folder, revoked_txt=f"{text}{issuers[2][1]}\n".encode())
    orders.refresh()
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.read(issuers[2][0].token())


def test_a_token_that_was_good_is_not_for_ever(
    orders: Identity, edge: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature is verified once; the end of a token and the deny list count at each call."""
    tokens, token = UserTokens(orders), edge.token()
    first = tokens.read(token)

    def decode(*_: Any, **__: Any) -> Any:
        raise jwt.ExpiredSignatureError

    monkeypatch.setattr(jwt, "decode", decode)
    for seconds, taken in ((0, True), (64, True), (66, False)):
        later = SimpleNamespace(time=lambda ahead=seconds: time.time() + ahead)
        monkeypatch.setattr(users, "time", later)
        if taken:
            assert tokens.read(token) is first
            continue
        with pytest.raises(Unauthenticated) as caught:
            tokens.read(token)
        assert caught.value.reason == "TOKEN_EXPIRED"
    monkeypatch.setattr(users, "time", time)
    monkeypatch.setattr(orders, "is_revoked", lambda *_: True)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.read(token)


def test_too_large_is_not_parsed() -> None:
    """The bound lies well above a token with a chain of four certificates."""
    assert 6000 < MAX_BYTES < 16_384
