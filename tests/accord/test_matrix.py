"""However a call ends, it ends completely: tasks, threads, spans, permits, probes, status."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.policies.breaker import State
from accord.testing.tcp_proxy import TcpProxy
from tests.accord import matrix
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect, collected, eventually, idle
from tests.support.telemetry import Spans


class Work:
    """Handlers of all arities that end as the text of their request tells."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.started = asyncio.Event()

    async def end(self, ending: str, context: Any) -> None:
        if ending == "down":
            raise accord.Unavailable("DOWN")
        self.started.set()
        if ending == "error":
            raise accord.NotFound()
        if ending == "server cancels":
            if self.driver.aio:
                raise asyncio.CancelledError
            context.cancel()
        if ending != "ok":
            await asyncio.sleep(60)

    def handlers(self) -> dict[str, Any]:
        async def unary(request: Any, context: Any) -> Any:
            await self.end(request.text, context)
            return request

        async def server_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            if request.text != "down":
                yield request
            await self.end(request.text, context)

        async def client_stream(requests: Any, context: Any) -> Any:
            async for request in requests:
                await self.end(request.text, context)
            return Message()

        async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                if request.text != "down":
                    yield request
                await self.end(request.text, context)

        behaviours = (unary, server_stream, client_stream, bidi)
        return dict(zip(matrix.ARITIES, behaviours, strict=True))


async def _finish(call: Any, method: str) -> str:
    """Read a call to its end; its status."""
    try:
        await (collect(call) if matrix.many_responses(method) else call)
    except (grpc.RpcError, asyncio.CancelledError) as error:
        return matrix.status(error)
    return "OK"


async def _end(
    driver: Driver, stub: Stub, method: str, ending: str, work: Work, line: TcpProxy, spans: Spans
) -> str | None:
    """Make a call that ends so; the status that its caller sees, if it asks."""
    call = getattr(stub, method)(
        matrix.argument(method, ending), timeout=matrix.timeout(method, ending)
    )
    if ending == "abandoned":
        if matrix.many_responses(method):
            async for _ in call:
                break
            await work.started.wait()
        await eventually(lambda: len(spans.clients) == 2)  # its task has begun
        return None
    if ending == "never read":
        return str((await call.code()).name)
    if ending in ("caller cancels", "connection lost"):
        reading = asyncio.ensure_future(_finish(call, method))
        await work.started.wait()
        line.cut() if ending == "connection lost" else call.cancel()
        code = await reading
    else:
        code = await _finish(call, method)
    assert driver.way == "blocking" or (await call.code()).name == code
    return code


def _threads() -> set[threading.Thread]:
    """All threads but those of the test, and the timers', of which a process has one."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.name != "accord-timers" and not thread.name.startswith("test")
    }


BLOCKING = ("ok", "error", "deadline", "server cancels", "connection lost")
"""Endings of a call that blocks: whoever waits for it can neither cancel nor abandon it."""


@pytest.mark.parametrize(
    ("driver", "method", "ending"),
    [
        (way, method, ending)
        for way in ("aio", "sync", "blocking")
        for method in matrix.ARITIES
        for ending in matrix.ENDINGS
        if way != "blocking" or (ending in BLOCKING and not matrix.many_responses(method))
    ],
    indirect=["driver"],
)
async def test_ending(
    driver: Driver, method: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is a half-open breaker's probe leaves nothing behind, and its status is right.

    That no task is left is what the fixture of all tests sees to.
    """
    threads = _threads()
    spans = Spans(monkeypatch)
    work, callee, caller = Work(driver), accord.Mesh("callee"), matrix.fragile()
    async with driver.serving(callee, work.handlers()) as address:
        with matrix.line_to(address) as line:
            stub = driver.stub(caller, f"127.0.0.1:{line.port}")
            await _finish(getattr(stub, method)(matrix.argument(method, "down")), method)
            await eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)

            code = await _end(driver, stub, method, ending, work, line, spans)
            assert code is None or code in matrix.expected(method, ending)

            ended = collected if ending == "abandoned" and driver.aio else eventually
            await ended(lambda: spans.settled() and idle(callee))
            assert matrix.one_span_a_side(spans, ending)
            assert matrix.code_of(spans, 1) in matrix.expected(method, ending)
            assert len(spans.ended) == len(spans.all)
            async with asyncio.timeout(20):
                while matrix.state_of(caller) is not State.CLOSED:
                    await _finish(getattr(stub, method)(matrix.argument(method, "ok")), method)
                    await asyncio.sleep(0.002)
            await driver.close(caller)
    await eventually(lambda: driver.aio or not _threads() - threads)


async def test_stream_as_a_probe(driver: Driver) -> None:
    """A stream that goes on for long closes the circuit when it is answered, not when it ends."""

    async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.text == "down":
                raise accord.Unavailable("DOWN")
            yield request

    caller = matrix.fragile()
    async with driver.serving(accord.Mesh("callee"), {"Bidi": bidi}) as address:
        stub = driver.stub(caller, address)
        await _finish(stub.Bidi(matrix.argument("Bidi", "down")), "Bidi")
        await eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)
        call = stub.Bidi()
        await call.write(Message(text="a"))
        assert (await call.read()).text == "a"
        await eventually(lambda: matrix.state_of(caller) is State.CLOSED)
        assert not call.done()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        await driver.close(caller)


async def test_refusal_of_a_stream_is_no_answer(driver: Driver) -> None:
    """A stream that is refused at once does not close the circuit, though it has metadata."""

    async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
        raise accord.Unavailable("DOWN")
        yield

    caller = matrix.fragile()
    async with driver.serving(accord.Mesh("callee"), {"Bidi": bidi}) as address:
        stub = driver.stub(caller, address)
        for _ in range(2):
            await eventually(
                lambda: not caller.snapshot().routes or matrix.state_of(caller) is State.HALF_OPEN
            )
            await _finish(stub.Bidi(matrix.argument("Bidi", "a")), "Bidi")
            assert matrix.state_of(caller) is not State.CLOSED
        await driver.close(caller)
