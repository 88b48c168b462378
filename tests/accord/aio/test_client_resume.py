"""Resumable streams: the state machine, and real streams over servers that go away."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import accord
from accord import context
from accord.ops.v1 import mesh_pb2
from accord.policies.resume import SLOW_CONSUMER, Drop, ResumeLimits, Resumption
from accord.policies.retry import NEVER, PUSHBACK_KEY
from accord.policies.types import Code
from accord.server.error_mapping import exhausted
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure, path, serving

AWAY = Drop(Code.UNAVAILABLE)


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def resumption(token: int = 0, *, random: float = 0.5, patience: float = 60.0) -> Any:
    """A state machine and its clock."""
    clock = Clock()
    limits = ResumeLimits(patience=patience)
    return Resumption(token, limits=limits, clock=clock, random=lambda: random), clock


@given(
    head=st.integers(1, 60),
    start=st.integers(0, 20),
    cuts=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 3)), max_size=20),
)
def test_no_gap_and_no_duplicate(head: int, start: int, cuts: list[tuple[int, int]]) -> None:
    """Whatever the cuts, and even if a server repeats old messages, each token comes once."""
    machine, _ = resumption(start)
    got: list[int] = []
    for count, overlap in cuts:
        # An attempt answers from its token on; a careless server repeats a few before it.
        first = max(start + 1, machine.token + 1 - (overlap if machine.attempt > 1 else 0))
        sent = range(first, min(head, first + count) + 1)
        got += [token for token in sent if machine.delivered(token)]
        assert machine.dropped(AWAY) is not None
    got += [token for token in range(machine.token + 1, head + 1) if machine.delivered(token)]
    machine.ended()
    assert list(range(start + 1, max(head, start) + 1)) == got


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 5),
            st.floats(0, 0.999),
            st.none() | st.floats(0, 3) | st.just(NEVER),
        ),
        min_size=1,
        max_size=80,
    )
)
def test_waiting_is_bounded(steps: list[tuple[bool, float, float, float | None]]) -> None:
    """Waits are jittered, or as long as the server says; without progress they end in time."""
    clock = Clock()
    draw = 0.0
    limits = ResumeLimits(patience=10.0)
    machine = Resumption(0, limits=limits, clock=clock, random=lambda: draw)
    token, since = 0, 0.0
    failures = 0
    for progress, attempt_takes, draw, told in steps:  # noqa: B007 - the machine draws it
        clock.now += attempt_takes
        if progress:
            token += 1
            assert machine.delivered(token)
            failures = 0
        if failures == 0:
            since = clock.now
        wait = machine.dropped(Drop(Code.UNAVAILABLE, told=told))
        least = told or 0.0
        if limits.patience - (clock.now - since) <= least:
            assert wait is None
            return
        assert wait is not None
        ceiling = min(limits.max_backoff, limits.first_backoff * 2.0**failures)
        assert least <= wait <= max(ceiling, least)
        assert clock.now + wait <= since + limits.patience + 1e-9
        failures += 1
        clock.now += wait


@pytest.mark.parametrize(
    ("drop", "resumes"),
    [
        (AWAY, True),
        (Drop(Code.UNAVAILABLE, reason="STREAM_MAX_LIFETIME"), True),
        (Drop(Code.ABORTED, reason=SLOW_CONSUMER), True),
        (Drop(Code.ABORTED, reason="LOST_RACE"), False),
        (Drop(Code.CANCELLED), True),
        (Drop(Code.INTERNAL, transport=True), True),
        (Drop(Code.INTERNAL), False),
        (Drop(Code.DEADLINE_EXCEEDED, lifetime=True), True),
        (Drop(Code.DEADLINE_EXCEEDED), False),
        (Drop(Code.OUT_OF_RANGE), False),
        (Drop(Code.NOT_FOUND), False),
        (Drop(Code.UNAUTHENTICATED), False),
        (Drop(Code.UNAVAILABLE, told=NEVER), False),
        (Drop(Code.UNAVAILABLE, told=59.0), True),
        (Drop(Code.UNAVAILABLE, told=61.0), False),
    ],
)
def test_what_is_worth_resuming(drop: Drop, resumes: bool) -> None:
    """Only drops that are nobody's decision, or invite to come back, are resumed."""
    machine, _ = resumption()
    assert resumes == (machine.dropped(drop) is not None)
    assert resumes != machine.finished


def test_quiet_stream_keeps_its_patience() -> None:
    """A stream that was accepted and lived for a while counts as progress without a message."""
    machine, clock = resumption(patience=10)
    for _ in range(100):
        machine.opened()
        clock.now += 6
        assert machine.dropped(AWAY) is not None


def test_accepting_and_dropping_is_no_progress() -> None:
    """A server that accepts and drops at once uses the patience up."""
    machine, clock = resumption(patience=10, random=0.999)
    waited = 0.0
    for _ in range(1000):
        machine.opened()
        wait = machine.dropped(AWAY)
        if wait is None:
            break
        clock.now += wait
        waited += wait
    assert machine.finished
    assert waited <= 10


def test_nothing_after_the_end() -> None:
    """A stream that ended with OK is not resumed."""
    machine, _ = resumption()
    machine.ended()
    assert machine.dropped(AWAY) is None


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


async def test_stream_without_a_drop() -> None:
    """A resumable stream behaves as any other: messages, OK, metadata; keepalives are hidden."""
    async with echo({"Watch": watch(5)}) as stub:
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
        assert await again.read() is grpc.aio.EOF  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [accord.Unavailable(), accord.Aborted(SLOW_CONSUMER)])
async def test_resumes_after_errors(error: accord.ServiceError) -> None:
    """Dropped after every third message, the consumer sees the exact sequence, told each time."""
    told: list[tuple[str, int, str]] = []

    def on_resume(method: str, attempt: int, failure: grpc.aio.AioRpcError) -> None:
        told.append((method, attempt, failure.code().name))

    handler = watch(30, every=3, error=error)
    async with echo({"Watch": handler}, on_resume=on_resume, random=lambda: 0.1) as stub:
        call = stub.Watch(Message(text="t"))
        messages = await collect(call)
    assert list(range(1, 31)) == [message.sequence for message in messages]
    assert {"t"} == {message.text for message in messages}
    assert [("/accordtest.v1.EchoService/Watch", n, error.code.name) for n in range(2, 12)] == told


@pytest.mark.parametrize(("pushback", "opened"), [("-1", 1), ("soon", 1), ("99999", 1), ("50", 2)])
async def test_pushback_is_obeyed(pushback: str, opened: int) -> None:
    """A server says when to come back to it, or never, and what outlasts patience is not waited."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        times.append(loop.time())
        yield Message(sequence=request.after + 1)
        if request.after == 0:
            context.set_trailing_metadata(((PUSHBACK_KEY, pushback),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    async with echo({"Watch": handler}, random=lambda: 0.0) as stub:
        got: list[int] = []
        if opened == 1:
            await failure(consume(stub.Watch(Message()), got))
        else:
            await consume(stub.Watch(Message()), got)
    assert (got, len(times)) == (list(range(1, opened + 1)), opened)
    if pushback == "50":
        assert times[1] - times[0] >= 0.045


async def test_contract_retries_what_is_not_resumed() -> None:
    """Before its first message a resumable stream is retried as its contract says."""
    resumed: list[str] = []
    callee = accord.Mesh("callee")
    caller = accord.Mesh("caller", on_resume=lambda *told: resumed.append(told[0]))
    retry = policy_pb2.Retry(max_attempts=2, codes=[policy_pb2.STATUS_CODE_RESOURCE_EXHAUSTED])
    retry.initial_backoff.nanos = 1_000_000
    override = mesh_pb2.Override(policy=policy_pb2.MethodPolicy(retry=retry))
    caller.control.overrides.set(path("Watch"), override)
    asked: list[int] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request.after)
        if len(asked) != 2:
            raise accord.ResourceExhausted("FULL")
        yield Message(sequence=request.after + 1)
        raise accord.ResourceExhausted("FULL")

    async with serving(callee, {"Watch": handler}) as address:
        got: list[int] = []
        error = await failure(consume(Stub(caller.channel(address)).Watch(Message(after=4)), got))
        await caller.close()
    assert (asked, got, error.reason) == ([4, 4], [5], "FULL")
    assert resumed == []


async def test_one_attempt_below_a_retry() -> None:
    """A stream that a retried call opens is not opened again before its first message."""
    asked: list[int] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request.after)
        raise accord.Unavailable("AWAY")
        yield

    async with echo({"Watch": handler}) as stub:
        handled = accord.CallContext(
            "caller", accord.method_policy(path("Relay")), None, lambda: 0.0, attempt=1
        )
        context.enter(handled)
        assert (await failure(collect(stub.Watch(Message())))).reason == "AWAY"
    assert asked == [0]


async def test_other_errors_are_raised() -> None:
    """A decision of the server ends the stream where it happened, with its details."""
    handler = watch(30, every=3, error=accord.OutOfRange("POSITION_IN_FUTURE"))
    got: list[int] = []
    async with echo({"Watch": handler}) as stub:
        call = stub.Watch(Message())
        error = await failure(consume(call, got))
        assert await call.code() is grpc.StatusCode.OUT_OF_RANGE
        assert await call.trailing_metadata()
    assert got == [1, 2, 3]
    assert error.reason == "POSITION_IN_FUTURE"


async def test_patience_ends() -> None:
    """Without progress the last error is raised when patience is over; nobody above goes on."""
    handler = watch(30, every=3, error=accord.Unavailable("AWAY"))

    async def never(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.after >= 3:
            raise accord.Unavailable("GONE")
        async for message in handler(request, context):
            yield message

    async with echo({"Watch": never}, resume_patience=0.3) as stub:
        start = asyncio.get_running_loop().time()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(stub.Watch(Message()))
        took = asyncio.get_running_loop().time() - start
    assert accord.ServiceError.from_rpc(caught.value).reason == "GONE"
    assert exhausted(caught.value)
    assert 0.25 < took < 2


async def test_own_timeout_bounds_all_attempts() -> None:
    """The caller's own timeout is for the whole stream, not for an attempt."""
    handler = watch(10_000, pace=0.005, every=3, error=accord.Unavailable())
    async with echo({"Watch": handler}, random=lambda: 0.0) as stub:
        start = asyncio.get_running_loop().time()
        error = await failure(collect(stub.Watch(Message(), timeout=0.4)))
        took = asyncio.get_running_loop().time() - start
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.3 < took < 1.5


async def test_lifetime_is_survived() -> None:
    """A stream that its server ends at the maximum lifetime goes on in a new one."""
    reasons = []

    def on_resume(method: str, attempt: int, error: grpc.aio.AioRpcError) -> None:
        reasons.append(accord.ServiceError.from_rpc(error).reason)

    async with echo({"WatchBriefly": watch(50, pace=0.01)}, on_resume=on_resume) as stub:
        messages = await collect(stub.WatchBriefly(Message()))
    assert list(range(1, 51)) == [message.sequence for message in messages]
    assert len(reasons) >= 2
    assert {"STREAM_MAX_LIFETIME"} == set(reasons)


async def test_connection_age_is_survived() -> None:
    """Streams cut by the server's connection age (GOAWAY) go on."""
    options = (("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 50))
    resumed = []
    caller = accord.Mesh("caller", on_resume=lambda *told: resumed.append(told))
    async with serving(accord.Mesh("callee"), {"Watch": watch(80, 0.01)}, options=options) as where:
        messages = await collect(Stub(caller.channel(where)).Watch(Message()))
        await caller.close()
    assert list(range(1, 81)) == [message.sequence for message in messages]
    assert resumed


async def test_restarts() -> None:
    """A server that is stopped hard and started again ten times: the exact sequence arrives."""
    caller = accord.Mesh("caller")
    callee = accord.Mesh("callee")
    got: list[int] = []
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(callee, {"Watch": watch(200, 0.002)}))
        port = int(address.rpartition(":")[2])
        call = Stub(caller.channel(address)).Watch(Message())
        consumer = asyncio.ensure_future(consume(call, got))
        for round_ in range(10):
            target = (round_ + 1) * 15
            await eventually(lambda target=target: len(got) >= target, 10)  # type: ignore[misc]
            await stack.aclose()
            assert not consumer.done()
            await stack.enter_async_context(
                serving(callee, {"Watch": watch(200, 0.002)}, port=port)
            )
        await asyncio.wait_for(consumer, 20)
    await caller.close()
    assert list(range(1, 201)) == got


async def test_killed_processes() -> None:
    """A server process that is killed five times in mid-stream: the exact sequence arrives."""
    caller = accord.Mesh("caller")
    got: list[int] = []
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

    process, port = await spawn(0)
    try:
        call = Stub(caller.channel(f"127.0.0.1:{port}")).Watch(Message())
        consumer = asyncio.ensure_future(consume(call, got))
        for round_ in range(5):
            target = (round_ + 1) * 30
            await eventually(lambda target=target: len(got) >= target, 10)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process, _ = await spawn(port)
        await asyncio.wait_for(consumer, 20)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await caller.close()
    assert list(range(1, 201)) == got


async def test_cancel_during_backoff() -> None:
    """A stream can be cancelled while it waits for its next attempt."""
    waiting = asyncio.Event()

    async def away(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.after == 99:
            yield Message()
        raise accord.Unavailable

    def on_resume(method: str, attempt: int, error: grpc.aio.AioRpcError) -> None:
        if attempt == 8:
            waiting.set()

    async with echo({"Watch": away}, on_resume=on_resume, random=lambda: 0.999) as stub:
        call = stub.Watch(Message())
        consumer = asyncio.ensure_future(collect(call))
        # By the eighth attempt the wait is two seconds long.
        await asyncio.wait_for(waiting.wait(), 10)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(consumer, 0.5)
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED


async def test_callback_that_fails() -> None:
    """A callback that raises does not break the stream."""

    def on_resume(method: str, attempt: int, error: grpc.aio.AioRpcError) -> None:
        raise RuntimeError

    handler = watch(6, every=3, error=accord.Unavailable())
    async with echo({"Watch": handler}, on_resume=on_resume) as stub:
        assert len(await collect(stub.Watch(Message()))) == 6


async def test_idle_stream_is_ended() -> None:
    """A stream on which nothing happens is UNAVAILABLE after its idle time, not before."""
    cancelled = asyncio.Event()

    async def quiet(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for _ in range(5):
                yield Message()
                await asyncio.sleep(0.1)
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with echo({"Quiet": quiet}) as stub:
        start = asyncio.get_running_loop().time()
        error = await failure(collect(stub.Quiet(Message())))
        took = asyncio.get_running_loop().time() - start
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
    assert 0.55 < took < 1.5
    assert cancelled.is_set()
