"""Resumable streams over threads."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

import accord
from accord.policies.resume import SLOW_CONSUMER
from tests.accord.kit import Message, Stub
from tests.accord.sync.kit import Hold, echo, eventually, failure, serving


def watch(head: int, **cut: Any) -> Any:
    """A handler that streams 1..head behind `after`, keepalives in between."""

    def handler(request: Any, context: Any) -> Iterator[Any]:
        for sequence in range(request.after + 1, head + 1):
            yield Message()
            yield Message(text=request.text, sequence=sequence)
            if "every" in cut and sequence % cut["every"] == 0:
                raise cut["error"]

    return handler


@pytest.mark.parametrize("error", [accord.Unavailable(), accord.Aborted(SLOW_CONSUMER)])
def test_resumes_after_errors(error: accord.ServiceError) -> None:
    """Dropped after every third message, the consumer sees the exact sequence, told each time."""
    told: list[tuple[str, int, str]] = []

    def on_resume(method: str, attempt: int, failure: grpc.RpcError) -> None:
        told.append((method, attempt, failure.code().name))

    handler = watch(30, every=3, error=error)
    with echo({"Watch": handler}, on_resume=on_resume, random=lambda: 0.1) as stub:
        call = stub.Watch(Message(text="t"))
        messages = list(call)
        assert call.code() is grpc.StatusCode.OK
    assert [message.sequence for message in messages] == list(range(1, 31))
    assert told == [
        ("/accordtest.v1.EchoService/Watch", attempt, error.code.name) for attempt in range(2, 12)
    ]


def test_gives_up_without_progress() -> None:
    """A stream that never comes back ends with its error after its patience."""

    def down(request: Any, context: Any) -> Iterator[Any]:
        raise accord.Unavailable("DOWN")
        yield

    with echo({"Watch": down}, resume_patience=0.2) as stub:
        call = stub.Watch(Message())
        assert failure(lambda: list(call)).reason == "DOWN"
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_lifetime_ends_and_is_resumed() -> None:
    """A stream lives on beyond its server's limit, even though the handler's thread is stuck."""
    holds: list[Hold] = []

    def handler(request: Any, context: Any) -> Iterator[Any]:
        yield Message(sequence=request.after + 1)
        if request.after == 2:
            return
        holds.append(Hold())
        holds[-1](context)

    with echo({"WatchBriefly": handler}, random=lambda: 0.0) as stub:
        assert [m.sequence for m in stub.WatchBriefly(Message())] == [1, 2, 3]
        eventually(lambda: all(hold.ended.is_set() for hold in holds))
    assert len(holds) == 2


def test_cancel_while_waiting() -> None:
    """`cancel()` from another thread ends the wait for the next attempt."""
    dropped = threading.Event()

    def handler(request: Any, context: Any) -> Iterator[Any]:
        yield Message(sequence=1)
        dropped.set()
        raise accord.Unavailable

    caller = accord.Mesh("caller", random=lambda: 0.999)
    with ExitStack() as stack:
        address = stack.enter_context(serving(accord.Mesh("callee"), {"Watch": handler}))
        call = Stub(caller.sync.channel(address)).Watch(Message())

        def cancel() -> None:
            dropped.wait(3)
            call.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        assert failure(lambda: list(call)).code is grpc.StatusCode.CANCELLED
        thread.join()
        assert call.code() is grpc.StatusCode.CANCELLED
        caller.sync.close()


def test_never_read() -> None:
    """A resumable stream that nobody reads ends with the status of its attempt."""

    def handler(request: Any, context: Any) -> Iterator[Any]:
        raise accord.NotFound("thing", "x")
        yield

    with echo({"Watch": handler}) as stub:
        assert stub.Watch(Message()).code() is grpc.StatusCode.NOT_FOUND
