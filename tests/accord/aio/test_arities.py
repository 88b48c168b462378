"""All four arities, every shape of handler: success, error, deadline and cancellation."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure
from tests.accord.server_kit import bare

METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]


class Log:
    """What handlers have gone through."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0

    async def hold(self) -> None:
        """Wait until cancelled."""
        self.started += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def act(text: str, log: Log) -> None:
    """Do what a request's text says."""
    if text == "refuse":
        raise accord.FailedPrecondition("SOLD_OUT", "nothing left")
    if text == "hold":
        await log.hold()


def asynchronous(log: Log) -> dict[str, Callable[..., Any]]:
    """Coroutines and asynchronous generators."""

    async def unary(request: Any, context: Any) -> Any:
        await act(request.text, log)
        return Message(text=request.text)

    async def server_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        for index in range(3):
            yield Message(text=f"{request.text} {index}")
        await act(request.text, log)

    async def client_stream(requests: Any, context: Any) -> Any:
        texts = []
        async for request in requests:
            await act(request.text, log)
            texts.append(request.text)
        return Message(text=",".join(texts))

    async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await act(request.text, log)
            yield Message(text=request.text)

    return {
        "Unary": unary,
        "ServerStream": server_stream,
        "ClientStream": client_stream,
        "Bidi": bidi,
    }


def reader_writer(log: Log) -> dict[str, Callable[..., Any]]:
    """Coroutines that read and write by themselves."""

    async def server_stream(request: Any, context: Any) -> None:
        for index in range(3):
            await context.write(Message(text=f"{request.text} {index}"))
        await act(request.text, log)

    async def client_stream(unused: Any, context: Any) -> Any:
        texts = []
        while (request := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            await act(request.text, log)
            texts.append(request.text)
        return Message(text=",".join(texts))

    async def bidi(unused: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            await act(request.text, log)
            await context.write(Message(text=request.text))

    return {
        **asynchronous(log),
        "ServerStream": server_stream,
        "ClientStream": client_stream,
        "Bidi": bidi,
    }


def synchronous(log: Log) -> dict[str, Callable[..., Any]]:
    """Functions and generators that run in threads."""

    def obey(text: str) -> None:
        assert accord.current() is not None, "the call does not reach the thread"
        if text == "refuse":
            raise accord.FailedPrecondition("SOLD_OUT", "nothing left")

    def unary(request: Any, context: Any) -> Any:
        obey(request.text)
        return Message(text=request.text)

    def server_stream(request: Any, context: Any) -> Iterator[Any]:
        for index in range(3):
            yield Message(text=f"{request.text} {index}")
        obey(request.text)

    def client_stream(requests: Any, context: Any) -> Any:
        texts = []
        for request in requests:
            obey(request.text)
            texts.append(request.text)
        return Message(text=",".join(texts))

    def bidi(requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            obey(request.text)
            yield Message(text=request.text)

    return {
        "Unary": unary,
        "ServerStream": server_stream,
        "ClientStream": client_stream,
        "Bidi": bidi,
    }


SHAPES = {"async": asynchronous, "reader-writer": reader_writer, "sync": synchronous}


async def requests(*texts: str) -> AsyncIterator[Any]:
    """A client stream."""
    for text in texts:
        yield Message(text=text)


def start(stub: Stub, method: str, text: str, **call: Any) -> Any:
    """The call object of a method."""
    streamed = method in ("ClientStream", "Bidi")
    return getattr(stub, method)(requests(text) if streamed else Message(text=text), **call)


async def finish(call: Any, method: str) -> list[str]:
    """The texts that a call answers with."""
    if method in ("Unary", "ClientStream"):
        return [(await call).text]
    return [message.text for message in await collect(call)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
async def test_success(shape: str, method: str) -> None:
    """A call gets its answer, status OK, whatever the shape of its handler."""
    async with echo(SHAPES[shape](Log())) as stub:
        call = start(stub, method, "a")
        expected = ["a 0", "a 1", "a 2"] if method == "ServerStream" else ["a"]
        assert expected == await finish(call, method)
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
async def test_error(shape: str, method: str) -> None:
    """A domain error arrives with code, reason, message and domain."""
    async with echo(SHAPES[shape](Log())) as stub:
        error = await failure(finish(start(stub, method, "refuse"), method))
    assert grpc.StatusCode.FAILED_PRECONDITION is error.code
    assert (error.reason, error.message, error.domain) == ("SOLD_OUT", "nothing left", "callee")


@pytest.mark.parametrize("shape", ["async", "reader-writer"])
@pytest.mark.parametrize("method", METHODS)
async def test_deadline(shape: str, method: str) -> None:
    """The deadline ends the call for the caller and for the handler."""
    log = Log()
    async with echo(SHAPES[shape](log)) as stub:
        error = await failure(finish(start(stub, method, "hold", timeout=0.15), method))
        assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code
        await eventually(lambda: log.cancelled == 1)


@pytest.mark.parametrize("shape", ["async", "reader-writer"])
@pytest.mark.parametrize("method", METHODS)
async def test_cancel(shape: str, method: str) -> None:
    """`cancel()` reaches the handler, and the call says CANCELLED."""
    log = Log()
    async with echo(SHAPES[shape](log)) as stub:
        call = start(stub, method, "hold")
        waiting = asyncio.ensure_future(finish(call, method))
        await eventually(lambda: log.started == 1)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
        await eventually(lambda: log.cancelled == 1)


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_upload_that_is_cut_short(shape: str, ending: str) -> None:
    """An upload whose caller has gone never looks complete to its handler."""
    begun, ends = list[str](), list[str]()

    @contextmanager
    def noting() -> Iterator[None]:
        begun.append("upload")
        try:
            yield
        except (asyncio.CancelledError, grpc.RpcError):
            ends.append("gone")
            raise
        ends.append("complete")

    async def iterating(requests: Any, context: Any) -> Any:
        with noting():
            await collect(requests)
        return Message()

    async def reading(unused: Any, context: Any) -> Any:
        with noting():
            while await context.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        return Message()

    def in_thread(requests: Any, context: Any) -> Any:
        with noting():
            list(requests)
        return Message()

    upload = {"async": iterating, "reader-writer": reading, "sync": in_thread}[shape]
    async with bare({"ClientStream": upload}) as served:
        for _ in range(10 if ending == "cancel" else 1):
            call = served.stub.ClientStream(timeout=5 if ending == "cancel" else 0.4)
            await call.write(Message())
            await eventually(lambda: len(begun) > len(ends))
            if ending == "cancel":
                call.cancel()
            await eventually(lambda: len(begun) == len(ends))
        await eventually(served.idle)
    assert set(ends) == {"gone"}


@pytest.mark.parametrize("method", METHODS)
async def test_cancelled_task(method: str) -> None:
    """Cancelling the task that awaits a call cancels the call on the server."""
    log = Log()
    async with echo(asynchronous(log)) as stub:
        waiting = asyncio.ensure_future(finish(start(stub, method, "hold"), method))
        await eventually(lambda: log.started == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: log.cancelled == 1)


@pytest.mark.parametrize("method", ["ServerStream", "Watch"])
async def test_abandoned_stream(method: str) -> None:
    """A stream that its consumer stops reading and drops is cancelled on the server."""
    log = Log()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text="first", sequence=1)
        await log.hold()

    async def first_of(call: Any) -> str:
        async for message in call:
            return str(message.text)
        return ""

    async with echo({method: endless}) as stub:
        assert await first_of(getattr(stub, method)(Message())) == "first"
        await eventually(lambda: log.started == 1)
        # The call objects refer to themselves, so it takes the collector, more than once.
        await eventually(lambda: gc.collect() >= 0 and log.cancelled == 1)


async def test_closed_stream() -> None:
    """Closing the iterator of a resumable stream early cancels it on the server, at once."""
    log = Log()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text="first", sequence=1)
        await log.hold()

    async with echo({"Watch": endless}) as stub:
        gc.disable()
        try:
            call = stub.Watch(Message())
            async with aclosing(aiter(call)) as messages:
                async for _ in messages:
                    await eventually(lambda: log.started == 1)
                    break
            await eventually(lambda: log.cancelled == 1)
        finally:
            gc.enable()


@pytest.mark.parametrize("shape", SHAPES)
async def test_write_and_read(shape: str) -> None:
    """`write()`, `read()` and `done_writing()` work on intercepted streams."""
    async with echo(SHAPES[shape](Log())) as stub:
        call = stub.Bidi()
        for text in ("a", "b"):
            await call.write(Message(text=text))
            assert (await call.read()).text == text
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        assert await call.code() is grpc.StatusCode.OK

        upload = stub.ClientStream()
        await upload.write(Message(text="a"))
        await upload.write(Message(text="b"))
        await upload.done_writing()
        assert (await upload).text == "a,b"


async def test_generator_is_closed_in_time() -> None:
    """A generator that is cancelled runs its `finally` before the call ends, not at collection."""
    closed = asyncio.Event()

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Message(text="x")
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async with echo({"ServerStream": stream}) as stub:
        call = stub.ServerStream(Message())
        async for _ in call:
            break
        call.cancel()
        await asyncio.wait_for(closed.wait(), 3)


async def test_concurrent_calls_keep_apart() -> None:
    """A hundred calls at once each see their own context."""

    async def handler(request: Any, context: Any) -> Any:
        before = accord.current()
        await asyncio.sleep(0.01)
        assert accord.current() is before
        return Message(text=request.text)

    async with echo({"Unary": handler}) as stub:
        texts = [str(index) for index in range(100)]
        answers = await asyncio.gather(*(stub.Unary(Message(text=text)) for text in texts))
        assert [answer.text for answer in answers] == texts
