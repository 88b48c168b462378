"""Tokens of outside users: who is believed, and who is refused for what."""

import asyncio
import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import accord
from accord.edge import Authenticator, Caller, KeySet
from tests.accord.edge.kit import AUDIENCE, ISSUER, Issuer, echo, serving


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


async def reason(authenticator: Authenticator, header: str) -> str:
    """Why a header is refused; "" if it is believed."""
    try:
        await authenticator.authenticate(header)
    except accord.ServiceError as error:
        return error.reason
    return ""


def encoded(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [json.dumps(each).encode() for each in (header, claims)]
    texts = [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts]
    return ".".join([*texts, signature])


async def test_a_good_token_says_who_calls(issuer: Issuer) -> None:
    """Subject, scopes and roles are those of its claims; it is verified once."""
    authenticator = issuer.authenticator()
    token = issuer.token("a:read b:write", roles=["operator"], exp=2_000_000_000)
    found = await authenticator.authenticate(f"bearer {token}")
    assert found == Caller("17", frozenset({"a:read", "b:write"}), frozenset({"operator"}), 2e9)
    assert await authenticator.authenticate(f"Bearer {token}") is found
    assert await authenticator.authenticate(None) is None
    listed = issuer.token(aud=["others", AUDIENCE])
    assert await reason(authenticator, f"Bearer {listed}") == ""
    odd = await authenticator.authenticate("Bearer " + issuer.token("  a\tb c"))
    assert odd is not None
    assert odd.scopes == {"a\tb", "c"}  # by spaces alone (RFC 6749)


async def test_what_is_not_believed(issuer: Issuer, tmp_path: Path) -> None:
    """Each kind of wrong token has its reason."""
    now = time.time()
    other = Issuer(tmp_path / "other.json")
    good = issuer.token("a")
    head, claims, signature = good.split(".")
    own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "17", "exp": now + 60, "scope": "a"}
    public = next(iter(issuer.keys.values())).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    rsa_key = rsa.generate_private_key(65537, 2048)
    cases = {
        "Basic abc": "TOKEN_MALFORMED",
        "Bearer": "TOKEN_MALFORMED",
        "Bearer ": "TOKEN_MALFORMED",
        "Bearer x": "TOKEN_MALFORMED",
        f"Bearer {good}, Bearer {good}": "TOKEN_MALFORMED",
        f"Bearer {'a' * 9000}": "TOKEN_MALFORMED",
        f"Bearer {head}.{claims}": "TOKEN_MALFORMED",
        f"Bearer {head}.{claims}.": "TOKEN_SIGNATURE",
        f"Bearer {head}.{claims}.{signature[:-6]}AAAAAA": "TOKEN_SIGNATURE",
        f"Bearer {encoded({'alg': 'none'}, own)}": "TOKEN_ALGORITHM",
        f"Bearer {encoded({'alg': 'None', 'kid': '1'}, own)}": "TOKEN_ALGORITHM",
        f"Bearer {encoded({'alg': ['ES256'], 'kid': '1'}, own)}": "TOKEN_ALGORITHM",
        "Bearer " + encoded({"alg": "HS256", "kid": "1"}, own, "AAAA"): "TOKEN_ALGORITHM",
        "Bearer " + jwt.encode(own, rsa_key, "RS256", headers={"kid": "1"}): "TOKEN_ALGORITHM",
        f"Bearer {encoded({'alg': 'ES256', 'kid': ['1']}, own)}": "TOKEN_MALFORMED",
        f"Bearer {other.token('a')}": "TOKEN_SIGNATURE",
        "Bearer " + issuer.token(exp=now - 60): "TOKEN_EXPIRED",
        "Bearer " + issuer.token(nbf=now + 60): "TOKEN_NOT_YET_VALID",
        "Bearer " + issuer.token(iat=now + 600): "TOKEN_NOT_YET_VALID",
        "Bearer " + issuer.token(aud="others"): "TOKEN_AUDIENCE",
        "Bearer " + issuer.token(aud=None): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(iss="https://evil.test"): "TOKEN_ISSUER",
        "Bearer " + issuer.token(exp=None): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(exp="2000000000"): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(sub=None): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(sub=""): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(sub="a b\r\n"): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(roles="operator"): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(roles=[1]): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(roles=["r"] * 17): "TOKEN_CLAIMS",
        "Bearer " + issuer.token(scope=["a"]): "TOKEN_CLAIMS",
    }  # fmt: skip
    authenticator = issuer.authenticator(algorithms=["ES256"])
    found = {header: await reason(authenticator, header) for header in cases}
    assert found == cases
    assert public  # a public key is no secret of HMAC: see TOKEN_ALGORITHM above


async def test_clocks_may_differ(issuer: Issuer) -> None:
    """By the leeway, and no more."""
    late = "Bearer " + issuer.token(exp=time.time() - 3)
    assert await reason(issuer.authenticator(), late) == ""
    assert await reason(issuer.authenticator(leeway=0), late) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("algorithm", ["none", "NONE", "HS256", "XX256"])
def test_algorithms_are_of_public_keys(issuer: Issuer, algorithm: str) -> None:
    """An authenticator that would believe anybody is not made."""
    with pytest.raises(ValueError, match="public keys"):
        issuer.authenticator(algorithms=["ES256", algorithm])
    with pytest.raises(ValueError, match="no algorithm"):
        issuer.authenticator(algorithms=[])


async def test_keys_are_rotated(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key in the file is known at once, one that has gone is not believed any more."""
    authenticator = issuer.authenticator()
    keys = authenticator._keys
    old = f"Bearer {issuer.token()}"
    assert await reason(authenticator, old) == ""
    issuer.rotate("1", "2")
    keys._read_at -= 3
    assert await reason(authenticator, f"Bearer {issuer.token(kid='2')}") == ""
    issuer.rotate("2")
    keys._read_at -= 3
    assert await reason(authenticator, old) == "TOKEN_KEY"
    without = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "17", "exp": time.time() + 9},
                         issuer.keys["2"], "ES256")  # fmt: skip
    assert await reason(authenticator, f"Bearer {without}") == ""  # the only key there is
    issuer.file.write_text("{")
    keys._read_at -= 3
    assert await reason(authenticator, f"Bearer {issuer.token(kid='2')}") == ""  # the last good


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys":[]}', '{"keys":[{"kty":"oct","k":"AAAA"}]}', '{"keys":[1]}']
)
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    """It is no key set, and neither is a shared secret."""
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError):
        KeySet.from_file(tmp_path / "keys")
    with pytest.raises(OSError):
        KeySet.from_file(tmp_path / "none")
    with pytest.raises(ValueError, match="https"):
        KeySet.from_url("file:///etc/passwd")


@pytest.fixture
def served(issuer: Issuer) -> Iterator[tuple[str, list[str]]]:
    """A server with the issuer's key set, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(issuer.file.read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/jwks", asked
        server.shutdown()


async def test_keys_at_a_url(issuer: Issuer, served: tuple[str, list[str]]) -> None:
    """They are read once for all who ask, again for an unknown key, and seldom more often."""
    url, asked = served
    keys = KeySet.from_url(url)
    authenticator = Authenticator(keys, issuer=ISSUER, audience=AUDIENCE)
    headers = [f"Bearer {issuer.token(n=n)}" for n in range(5)]
    assert await asyncio.gather(*(reason(authenticator, each) for each in headers)) == [""] * 5
    assert len(asked) == 1
    issuer.rotate("1", "2")
    new = f"Bearer {issuer.token(kid='2')}"
    assert await reason(authenticator, new) == "TOKEN_KEY"  # it was read a moment ago
    keys._read_at -= 6
    assert await reason(authenticator, new) == ""
    assert len(asked) == 2


async def test_a_url_that_does_not_answer(tmp_path: Path, issuer: Issuer) -> None:
    """Nobody is believed, nothing fails otherwise, and the loop is not held up."""
    keys = KeySet.from_url("http://127.0.0.1:1/jwks", timeout=1)
    authenticator = Authenticator(keys, issuer=ISSUER, audience=AUDIENCE)
    assert await reason(authenticator, f"Bearer {issuer.token()}") == "TOKEN_KEY"


async def test_scopes_and_challenges(tmp_path: Path) -> None:
    """401 and 403 say how to do better; an invalid token is refused on public routes, too."""
    async with serving(tmp_path, {"DeleteParcel": echo, "FindParcels": echo}) as served:
        missing = await served.http.delete("/v1/parcels/7")
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
        some = served.bearer("parcels:write")
        refused = await served.http.delete("/v1/parcels/7", headers=some)
        assert refused.status_code == 403
        wanted = 'Bearer error="insufficient_scope", scope="parcels:admin parcels:write"'
        assert refused.headers["www-authenticate"] == wanted
        stale = served.bearer(exp=time.time() - 60)
        for path in ("/v1/parcels", "/v1/parcels/7"):
            invalid = await served.http.get(path, headers=stale)
            assert invalid.status_code == 401
            assert invalid.json()["reason"] == "TOKEN_EXPIRED"
            assert 'error="invalid_token"' in invalid.headers["www-authenticate"]
        assert not served.metadata
    async with serving(tmp_path, {"FindParcels": echo}, authenticator=None) as served:
        assert (await served.http.get("/v1/parcels")).status_code == 200
        assert (await served.http.get("/v1/parcels", headers=some)).status_code == 401


def test_keys_of_other_kinds(tmp_path: Path) -> None:
    """A key set may have keys that cannot be used, beside one that can."""
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(
        ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True
    )
    listed = [{"kty": "XX"}, {"kty": "RSA"}, {**jwk, "use": "enc"}, {**jwk, "kid": "a"}]
    (tmp_path / "keys").write_text(json.dumps({"keys": listed}))
    assert list(KeySet.from_file(tmp_path / "keys")._keys) == ["a"]
