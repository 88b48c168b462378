"""Streams that resume, over servers that fail, end them or go away."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord import context
from accord.ops.v1 import mesh_pb2
from accord.policies.resume import SLOW_CONSUMER
from accord.policies.retry import PUSHBACK_KEY
from accord.server.error_mapping import exhausted
from accord.v1 import policy_pb2
from tests.accord.drivers import EOF, Driver, running
from tests.accord.kit import Message, collect, collected, eventually, failure, path
from tests.support.telemetry import Spans


def watch(head: int, pace: float = 0.0, **cut: Any) -> Any:
    """A handler that streams 1..head behind `after`, keepalives in between."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        for sequence in range(request.after + 1, head + 1):
            await asyncio.sleep(pace)
            yield Message()
            yield Message(text=request.text, sequence=sequence)
            if "every" in cut and sequence % cut["every"] == 0:
                raise cut["error"]

    return handler


async def consume(call: Any, got: list[int]) -> None:
    """Read a stream to its end, noting each token as it comes."""
    async for message in call:
        got += [message.sequence]


async def test_stream_without_a_drop(driver: Driver) -> None:
    """A resumable stream behaves as any other: messages, OK, metadata; keepalives are hidden."""
    async with driver.echo({"Watch": watch(5)}) as stub:
        call = stub.Watch(Message(after=2, text="t"))
        assert [message.sequence for message in await collect(call)] == [3, 4, 5]
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert call.done()
        assert await call.trailing_metadata() is not None
        assert await call.initial_metadata() is not None

        again = stub.Watch(Message())
        read = [await again.read() for _ in range(5)]
        assert [message.sequence for message in read] == [1, 2, 3, 4, 5]
        assert await again.read() is EOF


@pytest.mark.parametrize("error", [accord.Unavailable(), accord.Aborted(SLOW_CONSUMER)])
async def test_resumes_after_errors(driver: Driver, error: accord.ServiceError) -> None:
    """Dropped after every third message, the consumer sees the exact sequence, told each time."""
    told: list[tuple[str, int, str]] = []

    def on_resume(method: str, attempt: int, failure: grpc.RpcError) -> None:
        told.append((method, attempt, failure.code().name))

    handler = watch(30, every=3, error=error)
    async with driver.echo({"Watch": handler}, on_resume=on_resume, random=lambda: 0.1) as stub:
        call = stub.Watch(Message(text="t"))
        messages = await collect(call)
        assert await call.code() is grpc.StatusCode.OK
    assert list(range(1, 31)) == [message.sequence for message in messages]
    assert {"t"} == {message.text for message in messages}
    assert [(path("Watch"), attempt, error.code.name) for attempt in range(2, 12)] == told


@pytest.mark.parametrize(("pushback", "opened"), [("-1", 1), ("soon", 1), ("99999", 1), ("50", 2)])
async def test_pushback_is_obeyed(driver: Driver, pushback: str, opened: int) -> None:
    """A server says when to come back to it, or never, and what outlasts patience is not waited."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        times.append(loop.time())
        yield Message(sequence=request.after + 1)
        if request.after == 0:
            context.set_trailing_metadata(((PUSHBACK_KEY, pushback),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    async with driver.echo({"Watch": handler}, random=lambda: 0.0) as stub:
        got: list[int] = []
        if opened == 1:
            await failure(consume(stub.Watch(Message()), got))
        else:
            await consume(stub.Watch(Message()), got)
    assert (got, len(times)) == (list(range(1, opened + 1)), opened)
    if pushback == "50":
        assert times[1] - times[0] >= 0.045


async def test_contract_retries_what_is_not_resumed(driver: Driver) -> None:
    """Before its first message a resumable stream is retried as its contract says."""
    resumed: list[str] = []
    retry = policy_pb2.Retry(max_attempts=2, codes=[policy_pb2.STATUS_CODE_RESOURCE_EXHAUSTED])
    retry.initial_backoff.nanos = 1_000_000
    override = mesh_pb2.Override(policy=policy_pb2.MethodPolicy(retry=retry))
    asked: list[int] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request.after)
        if len(asked) != 2:
            raise accord.ResourceExhausted("FULL")
        yield Message(sequence=request.after + 1)
        raise accord.ResourceExhausted("FULL")

    def on_resume(*told: Any) -> None:
        resumed.append(told[0])

    got: list[int] = []
    async with driver.served({"Watch": handler}, on_resume=on_resume) as (stub, mesh):
        mesh.control.overrides.set(path("Watch"), override)
        error = await failure(consume(stub.Watch(Message(after=4)), got))
    assert (asked, got, error.reason) == ([4, 4], [5], "FULL")
    assert resumed == []


async def test_one_attempt_below_a_retry(driver: Driver) -> None:
    """A stream that a retried call opens is not opened again before its first message."""
    asked: list[int] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request.after)
        raise accord.Unavailable("AWAY")
        yield

    async with driver.echo({"Watch": handler}) as stub:
        handled = accord.CallContext(
            "caller", accord.method_policy(path("Relay")), None, lambda: 0.0, attempt=1
        )
        context.enter(handled)
        assert (await failure(collect(stub.Watch(Message())))).reason == "AWAY"
    assert asked == [0]


async def test_other_errors_are_raised(driver: Driver) -> None:
    """A decision of the server ends the stream where it happened, with its details."""
    handler = watch(30, every=3, error=accord.OutOfRange("POSITION_IN_FUTURE"))
    got: list[int] = []
    async with driver.echo({"Watch": handler}) as stub:
        call = stub.Watch(Message())
        error = await failure(consume(call, got))
        assert await call.code() is grpc.StatusCode.OUT_OF_RANGE
        assert await call.trailing_metadata()
    assert got == [1, 2, 3]
    assert error.reason == "POSITION_IN_FUTURE"


async def test_never_read(driver: Driver) -> None:
    """A resumable stream that nobody reads ends with the status of its attempt."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        raise accord.NotFound()
        yield

    async with driver.echo({"Watch": handler}) as stub:
        assert await stub.Watch(Message()).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("delivered", [0, 3])
async def test_patience_ends(driver: Driver, delivered: int) -> None:
    """Without progress the last error is raised when patience is over; nobody above goes on."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.after >= delivered:
            raise accord.Unavailable("GONE")
        yield Message(sequence=request.after + 1)
        raise accord.Unavailable("AWAY")

    loop = asyncio.get_running_loop()
    async with driver.echo({"Watch": handler}, resume_patience=0.3) as stub:
        call = stub.Watch(Message())
        start = loop.time()
        with pytest.raises(grpc.RpcError) as caught:
            await collect(call)
        took = loop.time() - start
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert accord.ServiceError.from_rpc(caught.value).reason == "GONE"
    assert exhausted(caught.value)
    assert 0.25 < took < 5


async def test_own_timeout_bounds_all_attempts(driver: Driver) -> None:
    """The caller's own timeout is for the whole stream, not for an attempt."""
    handler = watch(10_000, pace=0.005, every=3, error=accord.Unavailable())
    loop = asyncio.get_running_loop()
    async with driver.echo({"Watch": handler}, random=lambda: 0.0) as stub:
        start = loop.time()
        error = await failure(collect(stub.Watch(Message(), timeout=0.4)))
        took = loop.time() - start
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.3 < took < 5


async def test_lifetime_is_survived(driver: Driver) -> None:
    """A stream that its server ends at the maximum lifetime goes on; stuck handlers are told."""
    reasons, held, released = [], [], []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(sequence=request.after + 1)
        if request.after == 2:
            return
        held.append(request.after)
        try:
            await asyncio.sleep(60)
        finally:
            released.append(request.after)

    def on_resume(method: str, attempt: int, error: grpc.RpcError) -> None:
        reasons.append(accord.ServiceError.from_rpc(error).reason)

    behaviours = {"WatchBriefly": handler}
    async with driver.echo(behaviours, on_resume=on_resume, random=lambda: 0.0) as stub:
        messages = await collect(stub.WatchBriefly(Message()))
        await eventually(lambda: released == [0, 1])
    assert [message.sequence for message in messages] == [1, 2, 3]
    assert held == [0, 1]
    assert reasons == ["STREAM_MAX_LIFETIME"] * 2


async def test_connection_age_is_survived(driver: Driver) -> None:
    """Streams cut by the server's connection age (GOAWAY) go on."""
    options = (("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 50))
    resumed: list[Any] = []
    caller = accord.Mesh("caller", on_resume=lambda *told: resumed.append(told))
    behaviours = {"Watch": watch(80, 0.005)}
    async with (
        driver.serving(accord.Mesh("callee"), behaviours, options=options) as address,
        driver.calling(caller, address) as stub,
    ):
        messages = await collect(stub.Watch(Message()))
    assert list(range(1, 81)) == [message.sequence for message in messages]
    assert resumed


async def test_restarts(driver: Driver) -> None:
    """A server that is stopped hard and started again five times: the exact sequence arrives."""
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    behaviours = {"Watch": watch(200, 0.002)}
    got: list[int] = []
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(driver.serving(callee, behaviours))
        port = int(address.rpartition(":")[2])
        consumer = asyncio.ensure_future(
            consume(driver.stub(caller, address).Watch(Message()), got)
        )
        for target in range(15, 90, 15):
            await eventually(lambda target=target: len(got) >= target, 10)  # type: ignore[misc]
            await stack.aclose()
            assert not consumer.done()
            await stack.enter_async_context(driver.serving(callee, behaviours, port=port))
        await asyncio.wait_for(consumer, 20)
        await driver.close(caller)
    assert list(range(1, 201)) == got


async def test_killed_processes() -> None:
    """A server process that is killed twice in mid-stream: the exact sequence arrives.

    Of both drivers at once, since it takes a while to start one.
    """
    script = Path(__file__).parents[1] / "watch_server.py"

    async def spawn(port: int) -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.accord.watch_server",
            str(port),
            stdout=asyncio.subprocess.PIPE,
            cwd=script.parents[2],
        )
        assert process.stdout is not None
        return process, int(await process.stdout.readline())

    async with running("aio") as aio, running("sync") as sync:
        process, port = await spawn(0)
        streams: list[tuple[accord.Mesh, list[int], asyncio.Future[None]]] = []
        for driver in (aio, sync):
            caller, got = accord.Mesh("caller"), list[int]()
            call = driver.stub(caller, f"127.0.0.1:{port}").Watch(Message())
            streams.append((caller, got, asyncio.ensure_future(consume(call, got))))
        try:
            for target in (30, 90):
                await eventually(
                    lambda target=target: all(len(got) >= target for _, got, _ in streams)  # type: ignore[misc]
                )
                process.send_signal(signal.SIGKILL)
                await process.wait()
                process, _ = await spawn(port)
            for _, _, consumer in streams:
                await asyncio.wait_for(consumer, 20)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            for caller, _, _ in streams:
                await caller.close()
    assert [got for _, got, _ in streams] == [list(range(1, 201))] * 2


@pytest.mark.parametrize("delivered", [0, 1])
async def test_cancel_during_backoff(driver: Driver, delivered: int) -> None:
    """A stream can be cancelled while it waits for its next attempt."""
    drawing = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def away(request: Any, context: Any) -> AsyncIterator[Any]:
        if delivered:
            yield Message(sequence=1)
        raise accord.Unavailable("AWAY", retry_after=30.0)

    def random() -> float:
        loop.call_soon_threadsafe(drawing.set)  # the wait begins
        return 0.999

    async with driver.served({"Watch": away}, random=random) as (stub, _):
        call = stub.Watch(Message())
        consumer = asyncio.ensure_future(collect(call))
        await asyncio.wait_for(drawing.wait(), 10)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(consumer, 10)
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert not call.cancel()


@pytest.mark.parametrize("method", ["Watch", "RetriedStream"])
async def test_cancel_after_a_message(
    driver: Driver, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that cancels and reads no more ends its call: callbacks, status and span."""
    spans, told = Spans(monkeypatch), asyncio.Event()
    started, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(sequence=1)
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with driver.echo({method: handler}) as stub:
        call = getattr(stub, method)(Message())
        call.add_done_callback(lambda _: told.set())
        assert (await call.read()).sequence == 1
        await asyncio.wait_for(started.wait(), 20)
        assert call.cancel()
        await asyncio.wait_for(told.wait(), 20)
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        await asyncio.wait_for(ended.wait(), 20)
        await eventually(spans.settled)


async def test_dropped_after_an_unseen_failure(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that fails while nobody reads, and is dropped then, ends its span all the same."""
    spans, fail = Spans(monkeypatch), asyncio.Event()

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(sequence=1)
        await fail.wait()
        raise accord.Unavailable("DOWN")

    async with driver.echo({"Watch": handler}) as stub:
        call = stub.Watch(Message())
        assert (await call.read()).sequence == 1
        attempt = (call if driver.aio else call._call)._rpc
        fail.set()
        await eventually(attempt.done)
        del call
        await collected(spans.settled)
    (client,) = spans.clients
    assert (client.attributes or {})["rpc.response.status_code"] == "CANCELLED"


async def test_callback_that_fails(driver: Driver) -> None:
    """A callback that raises does not break the stream."""

    def on_resume(method: str, attempt: int, error: grpc.RpcError) -> None:
        raise RuntimeError

    handler = watch(6, every=3, error=accord.Unavailable())
    async with driver.echo({"Watch": handler}, on_resume=on_resume) as stub:
        assert len(await collect(stub.Watch(Message()))) == 6


async def test_idle_stream_is_ended(driver: Driver) -> None:
    """A stream on which nothing happens is UNAVAILABLE after its idle time, not before."""
    cancelled = asyncio.Event()
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def quiet(request: Any, context: Any) -> AsyncIterator[Any]:
        times.append(loop.time())
        try:
            for _ in range(30):
                yield Message()
                await asyncio.sleep(0.02)
            times.append(loop.time())
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with driver.echo({"Quiet": quiet}) as stub:
        for _ in range(5):  # a busy machine may let it seem idle before
            error = await failure(collect(stub.Quiet(Message())))
            await asyncio.wait_for(cancelled.wait(), 20)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
            if len(times) == 2:
                break
            times.clear()
            cancelled.clear()
    begun, quiet_since = times
    assert quiet_since - begun > 0.5  # longer than the idle time
    assert loop.time() - quiet_since > 0.15
