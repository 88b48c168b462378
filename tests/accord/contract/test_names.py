"""Names that are misspelt are refused at once, and what was meant is said."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.contract.names import method_name
from accord.ops.v1 import mesh_pb2, mesh_pb2_grpc
from accord.testing import FaultyServer, fail
from tests.accord.kit import SERVICE, Message, Stub, failure, path

OPS = "accord.ops.v1.MeshService"
assert mesh_pb2_grpc


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{SERVICE}/Retrid", "no method 'Retrid'; did you mean 'Retried'?"),
        (f"/{SERVICE}/Nothing", "no method 'Nothing'$"),
        (f"{OPS}/GetStat", "did you mean 'GetState'?"),
        ("accord.ops.v1.MeshServce/GetState", f"did you mean '{OPS}'?"),
        (f"{SERVICE}.Retried", "is not a method such as"),
        ("Retried", "is not a method such as"),
        ("", "is not a method such as"),
    ],
)
def test_methods(name: str, said: str) -> None:
    """Wherever a method is named: in a fallback, in a script, and where its policy is asked for."""

    def fallback(request: Any, error: Any) -> None:
        return None

    with FaultyServer() as faulty:
        for use in (
            method_name,
            lambda name: accord.Mesh("caller").fallback(name, fallback),
            lambda name: faulty.script(name, "OK"),
        ):
            with pytest.raises(ValueError, match=said.replace("?", r"\?")):
                use(name)


def test_with_and_without_the_first_slash() -> None:
    """Both are the method."""
    policy = accord.method_policy(path("Fragile"))
    assert accord.method_policy(path("Fragile")[1:]) is policy
    assert method_name(path("Fragile")) == method_name(path("Fragile")[1:]) == path("Fragile")
    with pytest.raises(ValueError, match="did you mean 'Fragile'"):
        accord.method_policy(f"{SERVICE}/Fragle")
    for stranger in ("nobody.v1.Knows/This", "accord.ops.v1.MeshSecrets/GetState"):
        assert method_name(stranger) == f"/{stranger}"


def test_services() -> None:
    """Of a channel, and of a check."""
    with pytest.raises(KeyError, match=f"did you mean '{OPS}'"):
        accord.check_service("accord.ops.v1.MeshServic")
    with pytest.raises(KeyError, match=f"did you mean '{OPS}'"):
        accord.Mesh("caller").sync.channel("127.0.0.1:1", "accord.ops.v1.MeshServic")


def test_targets() -> None:
    """What is neither a target nor an address is a mistake; without targets all are addresses."""
    mesh = accord.Mesh("caller", targets={"payments": "127.0.0.1:1", "orders": "127.0.0.1:2"})
    for use in (mesh.address, mesh.channel, mesh.sync.channel):
        with pytest.raises(ValueError, match="did you mean 'payments'"):
            use("paymnts")
    for address in ("127.0.0.1:3", "[::1]:3", "unix:/run/x", "dns:///payments.internal"):
        assert mesh.address(address) == address
    assert accord.Mesh("caller").address("localhost") == "localhost"


def test_codes() -> None:
    """Of a script's step."""
    with pytest.raises(ValueError, match="did you mean 'UNAVAILABLE'"):
        fail("UNAVAILABEL")


def _wrong(request: Any, error: Any) -> mesh_pb2.GetStateResponse:
    return mesh_pb2.GetStateResponse()


def test_fallback_that_says_what_it_returns() -> None:
    """It is refused when it is registered, and so is what is no function."""
    mesh = accord.Mesh("caller")
    with pytest.raises(TypeError, match=r"Unary answers with accordtest\.v1\.Message, not accord"):
        mesh.fallback(f"{SERVICE}/Unary", _wrong)
    with pytest.raises(TypeError, match="cannot be called"):
        mesh.fallback(f"{SERVICE}/Unary", Message())
    mesh.fallback(f"{OPS}/GetState", _wrong)


@pytest.mark.parametrize(
    "answer", [mesh_pb2.GetStateResponse(), "text"], ids=lambda answer: type(answer).__name__
)
@pytest.mark.parametrize("threads", [False, True], ids=["aio", "sync"])
async def test_fallback_that_does_not(
    threads: bool, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller gets the error of the call, as if the fallback had failed; the log has why."""
    mesh = accord.Mesh("caller")
    fallback: Callable[..., Any] = lambda request, error: answer  # noqa: E731
    mesh.fallback(f"{SERVICE}/Unary", fallback)
    if threads:
        with pytest.raises(grpc.RpcError) as caught:
            Stub(mesh.sync.channel("127.0.0.1:1")).Unary(Message())
        found = accord.failure_of(caught.value)
    else:
        found = await failure(Stub(mesh.channel("127.0.0.1:1")).Unary(Message()))
    await mesh.close()
    assert found is not None
    assert found.code is grpc.StatusCode.UNAVAILABLE
    (record,) = (record for record in caplog.records if record.name == "accord")
    assert record.getMessage() == f"a fallback failed method={path('Unary')}"
    assert record.exc_info is not None
    assert "answers with accordtest.v1.Message" in str(record.exc_info[1])
