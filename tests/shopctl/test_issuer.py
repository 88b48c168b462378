"""The development issuer: its key, its tokens, and how the key is replaced."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest

from shopctl import issuer
from shopctl.errors import CommandError, ExitCode
from tests.support.mesh_process import SHOPCTL


@pytest.fixture
def home(tmp_path: Path) -> Path:
    issuer.prepare(tmp_path)
    return tmp_path


def verified(home: Path, token: str, **expected: str) -> dict[str, Any]:
    """The claims, if one of the keys of the set has signed them; raises KeyError: none has."""
    listed = json.loads((home / "edge" / "jwks.json").read_text())
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(listed).keys}
    key = keys[jwt.get_unverified_header(token)["kid"]]
    wanted = {"issuer": "https://shop.internal", "audience": "shop-edge", **expected}
    return jwt.decode(token, key, ["ES256"], **wanted)  # type: ignore[arg-type]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHOPCTL, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_key_is_made_once_and_its_users_alone(home: Path) -> None:
    """What signs is for its owner; the key set has no private part; a second start keeps both."""
    folder = home / "edge"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (folder / "issuer.key").stat().st_mode & 0o077 == 0
    (public,) = json.loads(before["jwks.json"])["keys"]
    assert public.keys() == {"crv", "kty", "x", "y", "kid", "alg", "use"}
    issuer.prepare(home)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_token_says(home: Path) -> None:
    """It is a customer's or an operator's, with scopes, for 15 minutes; the names can be set."""
    done = run("token", "--customer", "17", "--home", str(home))
    claims = verified(home, done.stdout.strip())
    assert (claims["sub"], claims["roles"]) == ("17", ["customer"])
    assert claims["scope"] == "customers:read orders:read orders:write"
    assert claims["exp"] - claims["iat"] == 900
    names = {"MESH_EDGE_ISSUER": "https://a.example", "MESH_EDGE_AUDIENCE": "b"}
    done = run("token", "--role", "operator", "--home", str(home), **names)
    claims = verified(home, done.stdout.strip(), issuer="https://a.example", audience="b")
    assert claims["roles"] == ["operator"]


def test_a_key_is_replaced_without_a_gap(home: Path) -> None:
    """The new key is in the set before it signs, and the old one until the next is made."""
    first = issuer.issue(home, "1", ["customer"])
    between: list[str] = []

    def meanwhile(seconds: float) -> None:
        assert seconds >= 3
        between.append(issuer.issue(home, "2", ["customer"]))
        assert verified(home, between[0])["sub"] == "2"

    issuer.rotate(home, meanwhile)
    second = issuer.issue(home, "3", ["customer"])
    kids = [jwt.get_unverified_header(each)["kid"] for each in (first, *between, second)]
    assert kids[0] == kids[1] != kids[2]
    assert [verified(home, each)["sub"] for each in (first, *between, second)] == ["1", "2", "3"]
    issuer.rotate(home, lambda _: None)
    assert verified(home, second)["sub"] == "3"
    with pytest.raises(KeyError):
        verified(home, first)


def test_a_rotation_that_was_killed_leaves_a_key_that_works(home: Path) -> None:
    """Between its two files the old key still signs, and the next rotation knows it."""

    def dies(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        issuer.rotate(home, dies)
    token = issuer.issue(home, "1", ["customer"])
    issuer.rotate(home, lambda _: None)
    assert verified(home, token)["sub"] == "1"


def test_without_a_key_it_is_said_who_makes_it(tmp_path: Path) -> None:
    """Where `shopctl up` has not been, or others' keys count, there are no tokens."""
    with pytest.raises(CommandError, match="make it: shopctl certs init"):
        issuer.issue(tmp_path, "1", ["customer"])
    done = run("certs", "rotate", "edge-keys", "--home", str(tmp_path))
    assert done.returncode == ExitCode.FAILED
    assert "make it: shopctl certs init" in done.stderr
    done = run("certs", "rotate", "edge-keys", "orders", "--home", str(tmp_path))
    assert "edge-keys is everybody's" in done.stderr
