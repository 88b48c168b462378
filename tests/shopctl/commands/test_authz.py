"""`shopctl authz` and `shopctl token`: who may call what, and for whom."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest

from accord.identity import Identity
from accord.identity.users import UserTokens
from accord.server.callers import WRONG_TRUST_DOMAIN
from shopctl import authorization
from shopctl.certs.authority import Authority
from shopctl.errors import ExitCode
from shopctl.options import contracts
from tests.support.mesh_process import SHOPCTL, inherited


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**inherited(), "MESH_INSECURE": "", **environment}
    return subprocess.run(
        [*SHOPCTL, *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("authz")
    Authority(home / "certs").prepare(["operator", "orders"])
    return home


def explained(*words: str) -> dict[str, Any]:
    done = run("authz", "explain", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_explain_names_the_line_of_the_contract() -> None:
    """The answer has the verdict, its reason and where that stands; no shop has to run."""
    found = explained("orders", "shop.payments.v1.PaymentService/Charge")
    assert (found["caller"], found["allowed"]) == ("spiffe://shop.internal/orders", True)
    file, line = found["contract"].split(":")
    text = (authorization.PROTOS / file).read_text().splitlines()[int(line) - 1]
    assert text.strip() == 'allow: ["spiffe://shop.internal/orders"]'
    assert found["override"] is None

    found = explained("edge", "Charge")
    assert (found["allowed"], found["reason"]) == (False, "NOT_ALLOWED")
    lines = run("authz", "explain", "edge", "Charge").stdout.splitlines()
    assert lines[0].startswith("spiffe://shop.internal/edge may NOT call shop.payments.v1")
    assert lines[2].startswith(f"contract  {found['contract']}: spiffe://shop.internal/orders")


@pytest.mark.parametrize(
    ("caller", "method", "reason"),
    [
        ("operator", "MeshService/GetState", ""),
        ("orders", "MeshService/GetState", "NOT_ALLOWED"),
        ("anonymous", "GetOrder", "NO_IDENTITY"),
        ("spiffe://shop.internal/edge", "GetOrder", ""),
        ("spiffe://evil/edge", "GetOrder", WRONG_TRUST_DOMAIN),
        ("anonymous", "grpc.health.v1.Health/Check", ""),
        ("orders", "grpc.channelz.v1.Channelz/GetServers", "NOT_ALLOWED"),
        ("operator", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ""),
    ],
)
def test_explain(caller: str, method: str, reason: str) -> None:
    """Every kind of caller and of method gets the answer that a server gives."""
    found = authorization.explain(caller, method)
    assert (found.allowed, found.reason) == (not reason, reason)


def test_where_is_that_of_every_method() -> None:
    """The line that is named is a list of callers, whatever the contract looks like."""
    for name in contracts():
        file, line = authorization.explain("operator", name).contract.split(":")
        text = (authorization.PROTOS / file).read_text().splitlines()
        assert text[int(line) - 1].strip().startswith("allow: ["), name


def test_a_method_that_is_none_is_named() -> None:
    """A typing error is said as one, with what was meant."""
    done = run("authz", "explain", "orders", "OrderService/GetOrdr")
    assert done.returncode == ExitCode.USAGE
    assert "GetOrder" in done.stderr


def test_tokens_are_those_that_services_take(home: Path) -> None:
    """A token is for a customer, or for whoever runs the command, and lives for a minute."""
    tokens = UserTokens(Identity.from_folder(home / "certs" / "orders"))
    done = run("token", "--internal", "--customer", "17", "--home", str(home))
    user = tokens.read(done.stdout.strip())
    assert (user.id, user.roles, user.issuer) == (
        "17",
        frozenset({"customer"}),
        "spiffe://shop.internal/operator",
    )
    claims = jwt.decode(user.token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60
    done = run("token", "--internal", "--role", "operator", "--home", str(home))
    assert tokens.read(done.stdout.strip()).roles == {"operator"}


@pytest.mark.parametrize("words", [[], ["--customer", "17", "--role", "operator"]])
def test_tokens_are_for_one(home: Path, words: list[str]) -> None:
    """It has to be said for whom, once."""
    done = run("token", *words, "--home", str(home))
    assert done.returncode == ExitCode.USAGE
    assert "--customer ID or --role operator" in done.stderr


def test_without_certificates_there_are_no_tokens(home: Path) -> None:
    """A shop without TLS would not read one, and that is said."""
    done = run("token", "--internal", "--customer", "17", "--home", str(home), MESH_INSECURE="1")
    assert done.returncode != 0
    assert "without TLS" in done.stderr
