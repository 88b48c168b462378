"""Errors go through `copy` and `pickle`, and so through a pool of processes, as they are."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from accord.contract.live_overrides import OverrideRefused
from accord.errors import DEPENDENCY
from accord.sync.client_call import Refusal
from tests.accord.kit import Message, echo

ERRORS: Final[list[accord.ServiceError]] = [
    accord.ServiceError(grpc.StatusCode.UNAUTHENTICATED, "WHO", domain="edge"),
    accord.InvalidArgument(("name", "is empty"), ("mail", "is none")),
    accord.InvalidArgument("BAD", ("name", "is empty")),
    accord.NotFound("NO_PARCEL", accord.Resource("parcel", "7")),
    accord.AlreadyExists("EMAIL_TAKEN", accord.Resource("customer", "c1")),
    accord.FailedPrecondition("CLOSED", "no", accord.Precondition("t", "s", "d")),
    accord.OutOfRange("BEYOND", "no", metadata={"head": "7"}),
    accord.Aborted("LOST", retry_after=0.5),
    accord.ResourceExhausted("QUOTA", 1.5),
    accord.Unavailable("AWAY", 2.0),
    accord.DeadlineExceeded("LATE", "too late"),
    accord.PermissionDenied("NOT_YOURS"),
    accord.Unauthenticated("TOKEN_EXPIRED"),
]
COPIES: Final[list[Callable[[Any], Any]]] = [
    copy.copy,
    copy.deepcopy,
    lambda error: pickle.loads(pickle.dumps(error)),
]


def test_every_error_is_among_them() -> None:
    """And the first argument of each is its reason."""
    own = {
        kind
        for kind in accord.ServiceError.__subclasses__()
        if kind.__module__ == accord.ServiceError.__module__  # other modules may have theirs
    }
    assert {type(error) for error in ERRORS} == {accord.ServiceError, *own}
    for kind in own:
        assert kind("A_REASON").reason == "A_REASON"  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors(error: accord.ServiceError, copied: Callable[[Any], Any]) -> None:
    """All that an error says is in its copy."""
    found = copied(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
    assert found.to_status("here") == error.to_status("here")


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_other_errors(copied: Callable[[Any], Any]) -> None:
    """Refusals of calls, contracts and overrides."""
    refusal: Refusal[Any] = Refusal(grpc.StatusCode.UNAVAILABLE, "open", (("key", "value"),))
    setattr(refusal, DEPENDENCY, "/pkg.Service/Method")
    found = copied(refusal)
    assert (found.code(), found.details()) == (grpc.StatusCode.UNAVAILABLE, "open")
    assert found.trailing_metadata() == (("key", "value"),)
    assert getattr(found, DEPENDENCY) == "/pkg.Service/Method"
    for error in (
        accord.ContractError("a.proto", "pkg.Service/Method", "timeout", "is wrong"),
        OverrideRefused("pkg.Service/Method", "is wrong"),
        accord.IdempotencyConflict(),
    ):
        found = copied(error)
        assert type(found) is type(error)
        assert (str(found), vars(found)) == (str(error), vars(error))


async def test_error_of_a_call() -> None:
    """The error of a call is of gRPC."""

    async def handler(request: Any, context: Any) -> Any:
        raise ERRORS[4]

    async with echo({"Unary": handler}) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Unary(Message())
    for copied in COPIES:
        found = accord.failure_of(copied(caught.value))
        assert found is not None
        assert (found.reason, found.resource) == ("EMAIL_TAKEN", ERRORS[4].resource)


def _raise(error: Exception) -> None:
    raise error


def test_pool_of_processes() -> None:
    """The error of a worker reaches whoever waits for it; the pool goes on."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        for error in ERRORS[3:6]:
            with pytest.raises(type(error)) as caught:
                pool.submit(_raise, error).result(60)
            assert vars(caught.value) == vars(error)
