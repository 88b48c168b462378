"""However a call of `grpc.aio` ends, it ends completely: tasks, spans, permits, probes, status."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.policies.breaker import State
from accord.testing.tcp_proxy import TcpProxy
from tests.accord import matrix
from tests.accord.kit import Message, Stub, collect, eventually, idle, serving
from tests.support.telemetry import Spans


class Work:
    """Handlers of all arities that end as the text of their request tells."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    async def end(self, ending: str) -> None:
        if ending == "down":
            raise accord.Unavailable("DOWN")
        self.started.set()
        if ending == "error":
            raise accord.NotFound()
        if ending == "server cancels":
            raise asyncio.CancelledError
        if ending != "ok":
            await asyncio.sleep(60)

    def handlers(self) -> dict[str, Any]:
        async def unary(request: Any, context: Any) -> Any:
            await self.end(request.text)
            return request

        async def server_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            if request.text != "down":
                yield request
            await self.end(request.text)

        async def client_stream(requests: Any, context: Any) -> Any:
            async for request in requests:
                await self.end(request.text)
            return Message()

        async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                if request.text != "down":
                    yield request
                await self.end(request.text)

        return {
            "Unary": unary,
            "ServerStream": server_stream,
            "ClientStream": client_stream,
            "Bidi": bidi,
        }


async def _finish(call: Any, method: str) -> str:
    """Read a call to its end; its status."""
    try:
        await (collect(call) if matrix.many_responses(method) else call)
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return matrix.status(error)
    return "OK"


async def _end(
    stub: Stub, method: str, ending: str, work: Work, line: TcpProxy, spans: Spans
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
    assert (await call.code()).name == code
    return code


@pytest.mark.parametrize("method", matrix.ARITIES)
@pytest.mark.parametrize("ending", matrix.ENDINGS)
async def test_ending(method: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is a half-open breaker's probe leaves nothing behind, and its status is right.

    That no task is left is what the fixture of all tests sees to.
    """
    spans = Spans(monkeypatch)
    work, callee, caller = Work(), accord.Mesh("callee"), matrix.fragile()
    async with serving(callee, work.handlers()) as address:
        with matrix.line_to(address) as line:
            stub = Stub(caller.channel(f"127.0.0.1:{line.port}"))
            await _finish(getattr(stub, method)(matrix.argument(method, "down")), method)
            await eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)

            code = await _end(stub, method, ending, work, line, spans)
            assert code is None or code in matrix.expected(method, ending)

            await eventually(
                lambda: (
                    (ending != "abandoned" or gc.collect() >= 0)
                    and spans.settled()
                    and idle(callee)
                )
            )
            assert matrix.one_span_a_side(spans, ending)
            assert matrix.code_of(spans, 1) in matrix.expected(method, ending)
            assert len(spans.ended) == len(spans.all)
            async with asyncio.timeout(3):
                while matrix.state_of(caller) is not State.CLOSED:
                    await _finish(getattr(stub, method)(matrix.argument(method, "ok")), method)
                    await asyncio.sleep(0.002)
            await caller.close()


async def test_stream_as_a_probe() -> None:
    """A stream that goes on for long closes the circuit when it is answered, not when it ends."""
    release = asyncio.Event()

    async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.text == "down":
                raise accord.Unavailable("DOWN")
            yield request
            await release.wait()

    caller = matrix.fragile()
    async with serving(accord.Mesh("callee"), {"Bidi": bidi}) as address:
        stub = Stub(caller.channel(address))
        await _finish(stub.Bidi(matrix.argument("Bidi", "down")), "Bidi")
        await eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)
        call = stub.Bidi()
        await call.write(Message(text="a"))
        assert (await call.read()).text == "a"
        await eventually(lambda: matrix.state_of(caller) is State.CLOSED)
        assert not call.done()
        release.set()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        await caller.close()


async def test_refusal_of_a_stream_is_no_answer() -> None:
    """A stream that is refused at once does not close the circuit, though it has metadata."""

    async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
        raise accord.Unavailable("DOWN")
        yield

    caller = matrix.fragile()
    async with serving(accord.Mesh("callee"), {"Bidi": bidi}) as address:
        stub = Stub(caller.channel(address))
        for _ in range(2):
            await eventually(lambda: not caller.snapshot().routes or _half_open(caller))
            await _finish(stub.Bidi(matrix.argument("Bidi", "a")), "Bidi")
            assert matrix.state_of(caller) is not State.CLOSED
        await caller.close()


def _half_open(mesh: accord.Mesh) -> bool:
    return matrix.state_of(mesh) is State.HALF_OPEN
