"""All four arities, with both drivers: success, errors, deadline, cancellation, neglect."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.ops.v1 import mesh_pb2
from accord.v1 import policy_pb2
from tests.accord.drivers import EOF, WAYS, Driver, ways
from tests.accord.kit import Message, Stub, collect, collected, eventually, failure, path

METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]
ONE = ("Unary", "ClientStream")
"""Those with one response."""

calls = pytest.mark.parametrize(
    ("driver", "method"),
    [
        (f"{way}{made}", method)
        for way in WAYS
        for made in ("", " interceptors")
        for method in METHODS
        if way != "blocking" or method in ONE
    ],
    indirect=["driver"],
)
"""Each way to make a call of each arity."""

call_objects = pytest.mark.parametrize(
    ("driver", "method"),
    [
        (f"{way}{made}", method)
        for way in ("aio", "sync")
        for made in ("", " interceptors")
        for method in METHODS
    ],
    indirect=["driver"],
)
"""The same, of calls that have an object."""


class Work:
    """Handlers that do what the text of their request says."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0

    async def obey(self, text: str, context: Any) -> None:
        assert accord.current() is not None
        if text == "refuse":
            raise accord.FailedPrecondition("SOLD_OUT", "nothing left")
        if text == "abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("left", "right"),))
        if text == "set":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            context.set_details("beyond")
            context.set_trailing_metadata((("left", "right"),))
        if text == "bug":
            raise RuntimeError("secret")
        if text == "hold":
            await self.hold()

    async def hold(self) -> None:
        """Wait until the call has ended."""
        self.started += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def handlers(self) -> dict[str, Any]:
        async def unary(request: Any, context: Any) -> Any:
            await self.obey(request.text, context)
            return Message(text=request.text)

        async def server_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            for index in range(3):
                yield Message(text=f"{request.text} {index}")
            await self.obey(request.text, context)

        async def client_stream(requests: Any, context: Any) -> Any:
            texts = []
            async for request in requests:
                await self.obey(request.text, context)
                texts.append(request.text)
            return Message(text=",".join(texts))

        async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                await self.obey(request.text, context)
                yield Message(text=request.text)

        return dict(zip(METHODS, (unary, server_stream, client_stream, bidi), strict=True))


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
    if method in ("ServerStream", "Bidi"):
        return [message.text for message in await collect(call)]
    return [(await call).text]


@calls
async def test_success(driver: Driver, method: str) -> None:
    """A call gets its answer, and the status OK."""
    async with driver.echo(Work().handlers()) as stub:
        call = start(stub, method, "a")
        expected = ["a 0", "a 1", "a 2"] if method == "ServerStream" else ["a"]
        assert expected == await finish(call, method)
        if driver.way != "blocking":
            assert await call.code() is grpc.StatusCode.OK
            assert call.done()
            assert not call.cancel()


@calls
async def test_errors(driver: Driver, method: str) -> None:
    """Domain errors, aborts, codes that are set and bugs arrive; nothing of a bug is told."""
    async with driver.echo(Work().handlers()) as stub:

        async def error(text: str) -> accord.ServiceError:
            return await failure(finish(start(stub, method, text), method))

        refused, aborted = await error("refuse"), await error("abort")
        set_code, bug = await error("set"), await error("bug")
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (refused.reason, refused.message, refused.domain) == (
        "SOLD_OUT",
        "nothing left",
        "callee",
    )
    assert (aborted.code, aborted.message) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert (set_code.code, set_code.message) == (grpc.StatusCode.OUT_OF_RANGE, "beyond")
    assert bug.code is grpc.StatusCode.INTERNAL
    assert "secret" not in bug.message


@call_objects
async def test_status_of_a_failed_call(driver: Driver, method: str) -> None:
    """A call object says how its call has failed."""
    async with driver.echo(Work().handlers()) as stub:
        for text, code in (("abort", "NOT_FOUND"), ("set", "OUT_OF_RANGE")):
            call = start(stub, method, text)
            with pytest.raises(grpc.RpcError) as caught:
                await finish(call, method)
            trailers: Any = caught.value.trailing_metadata()
            assert dict(trailers)["left"] == "right"
            assert (await call.code()).name == code
            assert await call.details() == {"abort": "gone", "set": "beyond"}[text]
            assert dict(await call.trailing_metadata())["left"] == "right"
            assert call.done()
            assert not call.cancelled()


@calls
async def test_deadline(driver: Driver, method: str) -> None:
    """The deadline ends the call for the caller and for the handler."""
    work = Work()
    async with driver.echo(work.handlers()) as stub:
        error = await failure(finish(start(stub, method, "hold", timeout=0.15), method))
        assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code
        await eventually(lambda: work.cancelled == work.started)


@call_objects
async def test_cancel(driver: Driver, method: str) -> None:
    """`cancel()` reaches the handler, and the call says CANCELLED."""
    work, told = Work(), asyncio.Event()
    async with driver.echo(work.handlers()) as stub:
        call = start(stub, method, "hold")
        call.add_done_callback(lambda _: told.set())
        waiting = asyncio.ensure_future(finish(call, method))
        await eventually(lambda: work.started == 1)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
        assert not call.cancel()
        await asyncio.wait_for(told.wait(), 20)
        await eventually(lambda: work.cancelled == 1)


@pytest.mark.parametrize("ending", ["cancel", "deadline", "contract"])
async def test_upload_that_is_cut_short(driver: Driver, ending: str) -> None:
    """An upload whose caller has gone, or takes too long, never looks complete to its handler."""
    begun, ends = list[str](), list[str]()

    @contextmanager
    def noting() -> Iterator[None]:
        begun.append("upload")
        try:
            yield
        except (asyncio.CancelledError, grpc.RpcError, accord.DeadlineExceeded):
            ends.append("gone")
            raise
        ends.append("complete")

    async def upload(requests: Any, context: Any) -> Any:
        with noting():
            await collect(requests)
        return Message()

    short = policy_pb2.MethodPolicy(timeout=Duration(nanos=100_000_000))
    async with driver.bare({"ClientStream": upload}) as served:
        if ending == "contract":
            override = mesh_pb2.Override(policy=short)
            served.mesh.control.overrides.set(path("ClientStream"), override)
        # gRPC tells a thread late in one of ten or twenty calls.
        times = {"cancel": 10 if driver.aio else 100, "deadline": 1 if driver.aio else 10}
        for _ in range(times.get(ending, 1)):
            call = served.stub.ClientStream(timeout={"cancel": 5, "deadline": 0.1}.get(ending))
            await call.write(Message())
            if ending == "cancel":
                await eventually(lambda: len(begun) > len(ends))
                call.cancel()
            else:
                assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await eventually(lambda: len(begun) == len(ends))
        await eventually(served.idle)
    assert set(ends) == {"gone"}


@pytest.mark.parametrize("method", ["ServerStream", "Bidi", "Watch"])
async def test_abandoned_stream(driver: Driver, method: str) -> None:
    """A stream that its consumer stops reading and drops is cancelled on the server."""
    work = Work()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text="first", sequence=1)
        await work.hold()

    async def first_of(call: Any) -> str:
        async for message in call:
            await eventually(lambda: work.started == 1)
            return str(message.text)
        return ""

    async with driver.echo({method: endless}) as stub:
        argument = iter([Message()]) if method == "Bidi" else Message()
        assert await first_of(getattr(stub, method)(argument)) == "first"
        # The call objects of aio refer to themselves, so it takes the collector, more than once.
        await collected(lambda: work.cancelled == 1)


async def test_generator_is_closed_in_time(driver: Driver) -> None:
    """A generator whose caller has gone runs its `finally` at once, in its call's context."""
    closed: list[Any] = []

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Message(text="x")
                await asyncio.sleep(0.01)
        finally:
            closed.append(accord.current())

    async with driver.echo({"ServerStream": stream}) as stub:
        gc.disable()
        try:
            call = stub.ServerStream(Message())
            await call.read()
            call.cancel()
            await eventually(lambda: len(closed) == 1)
        finally:
            gc.enable()
    assert closed[0] is not None


async def test_concurrent_calls_keep_apart(driver: Driver) -> None:
    """A hundred calls at once each see their own context, between two messages as well."""

    async def unary(request: Any, context: Any) -> Any:
        before = accord.current()
        await asyncio.sleep(0.01)
        assert accord.current() is before
        return Message(text=request.text)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        before = accord.current()
        for _ in range(3):
            await asyncio.sleep(0.001)
            assert accord.current() is before
            yield request

    texts = [str(index) for index in range(100)]
    async with driver.echo({"Unary": unary, "ServerStream": stream}) as stub:
        for method in ("Unary", "ServerStream"):
            answers = await asyncio.gather(
                *(finish(getattr(stub, method)(Message(text=text)), method) for text in texts)
            )
            assert answers == [[text] * (3 if method == "ServerStream" else 1) for text in texts]


async def write_and_read(stub: Any) -> None:
    """What a caller does who sends requests one by one, each when the one before is answered."""
    call = stub.Bidi()
    for text in ("a", "b"):
        await call.write(Message(text=text))
        assert (await call.read()).text == text
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK

    upload = stub.ClientStream()
    await upload.write(Message(text="a"))
    await upload.write(Message(text="b"))
    await upload.done_writing()
    assert (await upload).text == "a,b"


@ways("aio", "sync", "sync interceptors")
async def test_write_and_read(driver: Driver) -> None:
    """Requests are sent one by one, each when the one before is answered."""
    async with driver.echo(Work().handlers()) as stub:
        await write_and_read(stub)
