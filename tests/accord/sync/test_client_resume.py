"""Resumable streams over threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.resume import SLOW_CONSUMER
from accord.policies.retry import PUSHBACK_KEY
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, path
from tests.accord.sync.kit import Hold, echo, eventually, failure, serving
from tests.support.telemetry import Spans


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


@pytest.mark.parametrize(("pushback", "opened"), [("-1", 1), ("99999", 1), ("50", 2)])
def test_pushback_is_obeyed(pushback: str, opened: int) -> None:
    """A server says when to come back to it, or never, and what outlasts patience is not waited."""
    times: list[float] = []

    def handler(request: Any, context: Any) -> Iterator[Any]:
        times.append(time.monotonic())
        yield Message(sequence=request.after + 1)
        if request.after == 0:
            context.set_trailing_metadata(((PUSHBACK_KEY, pushback),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    got: list[int] = []
    with echo({"Watch": handler}, random=lambda: 0.0) as stub:
        call = stub.Watch(Message())
        if opened == 1:
            failure(lambda: got.extend(message.sequence for message in call))
        else:
            got.extend(message.sequence for message in call)
    assert (got, len(times)) == (list(range(1, opened + 1)), opened)
    if pushback == "50":
        assert times[1] - times[0] >= 0.045


def test_contract_retries_what_is_not_resumed() -> None:
    """Before its first message a resumable stream is retried as its contract says."""
    resumed: list[str] = []
    callee = accord.Mesh("callee")
    caller = accord.Mesh("caller", on_resume=lambda *told: resumed.append(told[0]))
    retry = policy_pb2.Retry(max_attempts=2, codes=[policy_pb2.STATUS_CODE_RESOURCE_EXHAUSTED])
    retry.initial_backoff.nanos = 1_000_000
    override = mesh_pb2.Override(policy=policy_pb2.MethodPolicy(retry=retry))
    caller.control.overrides.set(path("Watch"), override)
    asked: list[int] = []

    def handler(request: Any, context: Any) -> Iterator[Any]:
        asked.append(request.after)
        if len(asked) != 2:
            raise accord.ResourceExhausted("FULL")
        yield Message(sequence=request.after + 1)

    with serving(callee, {"Watch": handler}) as address:
        call = Stub(caller.sync.channel(address)).Watch(Message(after=4))
        assert [message.sequence for message in call] == [5]
        caller.sync.close()
    assert asked == [4, 4]
    assert resumed == []


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
        raise accord.NotFound()
        yield

    with echo({"Watch": handler}) as stub:
        assert stub.Watch(Message()).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Watch", "RetriedStream"])
def test_cancel_after_a_message(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that cancels and reads no more ends its call: callbacks, status and span."""
    spans, hold, told = Spans(monkeypatch), Hold(), threading.Event()

    def handler(request: Any, context: Any) -> Iterator[Any]:
        yield Message(sequence=1)
        hold(context)

    with echo({method: handler}) as stub:
        call = getattr(stub, method)(Message())
        assert call.add_callback(told.set)
        for _ in call:
            assert hold.started.wait(3)
            assert call.cancel()
            break
        assert told.is_set()
        assert call.code() is grpc.StatusCode.CANCELLED
        assert not call.cancel()
        assert failure(lambda: next(call)).code is grpc.StatusCode.CANCELLED
        assert hold.ended.wait(3)
        eventually(spans.settled)


def test_dropped_after_an_unseen_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails while nobody reads, and is dropped then, ends its span all the same."""
    spans, read = Spans(monkeypatch), threading.Event()

    def handler(request: Any, context: Any) -> Iterator[Any]:
        yield Message(sequence=1)
        read.wait(3)
        raise accord.Unavailable("DOWN")

    with echo({"Watch": handler}) as stub:
        call = stub.Watch(Message())
        assert next(call).sequence == 1
        attempt = call._rpc
        read.set()
        eventually(lambda: not attempt.is_active())
        del call
        eventually(spans.settled)
    (client,) = spans.clients
    assert (client.attributes or {})["rpc.response.status_code"] == "CANCELLED"
