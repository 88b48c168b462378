"""A channel and a server of the mesh do what gRPC's own do, where a contract says nothing else.

Each scenario is run twice, with gRPC's own and with the mesh's: what is seen must be the same. With
`interceptors`, they are gRPC's own with the interceptors of the mesh, and what is seen must be the
same as with interceptors that do nothing.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.kit import Message, Stub, collect, handlers
from tests.accord.matrix import ARITIES, many_requests, many_responses


async def as_bare(way: str, see: Callable[[str], Awaitable[Any]]) -> Any:
    """What `see` sees with the mesh, which must be what it sees with bare gRPC."""
    expected, found = await see("bare"), await see(way)
    assert found == expected
    return found


async def tell(awaitable: Awaitable[Any]) -> str:
    """How waiting for something ends: its value, a status code, or the type of an exception."""
    try:
        found = await asyncio.wait_for(awaitable, 20)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except (Exception, asyncio.CancelledError) as error:
        return type(error).__name__
    return str(found)


def behaviours(act: Callable[[Any], Awaitable[None]]) -> dict[str, Any]:
    """Handlers of all arities that do `act` with their context; streams send a message before."""

    async def one(request: Any, context: Any) -> Any:
        await act(context)
        return Message(text="answer")

    async def many(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text="first")
        await act(context)

    return {method: many if many_responses(method) else one for method in ARITIES}


@asynccontextmanager
async def aio(
    way: str, act: Callable[[Any], Awaitable[None]]
) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """A server and a channel to it, of gRPC's own or of the mesh."""
    mesh = accord.Mesh("both")
    if way == "mesh":
        server: Any = mesh.server()
    else:
        server = grpc.aio.server(interceptors=mesh.server_interceptors() if way != "bare" else [])
    server.add_generic_rpc_handlers((handlers(behaviours(act)),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    channel = channel_of(mesh, way, address)
    try:
        yield Stub(channel), channel
    finally:
        await channel.close(None)
        await server.stop(None)


def channel_of(mesh: accord.Mesh, way: str, address: str) -> grpc.aio.Channel:
    """A channel for `grpc.aio`."""
    if way == "mesh":
        return mesh.channel(address)
    theirs = mesh.client_interceptors() if way == "interceptors" else []
    return grpc.aio.insecure_channel(address, interceptors=theirs)


async def hold(context: Any) -> None:
    """Never end by itself."""
    await asyncio.sleep(60)


def call_of(stub: Stub, method: str, **call: Any) -> Any:
    """A call; one of many requests is written by hand."""
    found = getattr(stub, method)
    return found(**call) if many_requests(method) else found(Message(text="request"), **call)


async def response_of(call: Any, method: str) -> Any:
    """The first response of a call."""
    return await (call.read() if many_responses(method) else call)


@pytest.mark.parametrize("method", ARITIES)
async def test_cancelled_at_once(method: str) -> None:
    """A call may be cancelled before the event loop has run."""

    async def see(way: str) -> Any:
        async with aio(way, hold) as (stub, _):
            call = call_of(stub, method)
            said = call.cancel(), call.cancelled(), call.done(), call.cancel()
            ended = await tell(response_of(call, method))
            return said, ended, await tell(call.code()), await tell(call.details())

    await as_bare("mesh", see)


# With streams gRPC cancels a call whose interceptor has not run yet, whatever that does.
@pytest.mark.parametrize(
    ("method", "way"), [*((method, "mesh") for method in ARITIES), ("Unary", "interceptors")]
)
async def test_asked_on_its_way(method: str, way: str) -> None:
    """A call that is on its way says how long it has and what came first; asking does no harm."""
    answer = asyncio.Event()

    async def greet(context: Any) -> None:
        await answer.wait()

    async def see(way: str) -> Any:
        answer.clear()
        async with aio(way, greet) as (stub, _):
            call = call_of(stub, method, timeout=1.5)
            left = call.time_remaining() if way != "interceptors" else 1.5  # gRPC's cannot say
            if many_requests(method):
                await call.done_writing()
            impatient = asyncio.ensure_future(call.code())
            await asyncio.sleep(0)
            impatient.cancel()
            gone = await tell(impatient), call.cancelled()
            answer.set()
            said = await tell(response_of(call, method)), call.cancelled()
            return 0.5 < left <= 1.5, gone, said, await tell(call.initial_metadata())

    await as_bare(way, see)


@pytest.mark.parametrize("method", ["ServerStream", "ClientStream", "Bidi"])
async def test_channel_closed(method: str) -> None:
    """Closing a channel ends the streams that are open, and calls after it are refused."""

    async def see(way: str) -> Any:
        async with aio(way, hold) as (stub, channel):
            call = call_of(stub, method)
            if many_responses(method):
                await call.read()
            await channel.close(None)
            ended = await tell(call.code()), call.done(), call.cancelled()
            try:
                again = call_of(stub, method)
            except grpc.aio.UsageError as error:
                return ended, type(error)
            return ended, await tell(response_of(again, method))

    await as_bare("mesh", see)


@pytest.mark.parametrize("method", ARITIES)
async def test_no_server(method: str) -> None:
    """Whoever waits for the connection, writes or reads is told the status of the call."""

    async def see(way: str) -> Any:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            async with channel_of(accord.Mesh("caller"), way, address) as channel:
                call = call_of(Stub(channel), method)
                waited = await tell(call.wait_for_connection())
                call = call_of(Stub(channel), method)
                written = read = ""
                if many_requests(method):
                    written = await tell(call.write(Message()))
                    written += await tell(call.write(Message()))
                read = await tell(response_of(call, method))
                return waited, written, read, await tell(call.code())

    assert "UNAVAILABLE" in await as_bare("mesh", see)


async def test_misused() -> None:
    """What gRPC calls wrong use is raised as by gRPC."""

    async def see(way: str) -> Any:
        async def nothing(context: Any) -> None:
            pass

        seen = []
        async with aio(way, nothing) as (stub, _):
            call = stub.Bidi(iter([Message()]))
            seen.append(await tell(call.write(Message())))
            await collect(call)
            call = stub.ServerStream(Message())
            await call.read()
            seen.append(await tell(collect(call)))
            call.cancel()
            token = grpc.access_token_call_credentials("token")
            for method in ARITIES:
                try:
                    call = call_of(stub, method, credentials=token)
                except grpc.aio.UsageError as error:
                    seen.append(type(error).__name__)
                else:
                    seen.append(await tell(response_of(call, method)))
        return seen

    await as_bare("mesh", see)


ODD_METADATA: Final = {
    "numbers": ((42, 42),),
    "none": ((None, {}),),
    "object": (("normal", object()),),
    "case": (("Upper", "case"),),
    "bytes": ((b"bytes", b"bytes"),),
    "value": (("text", b"bytes"),),
    "binary": (("key-bin", b"\x00\xff"),),
}


@pytest.mark.parametrize("way", ["mesh", "interceptors"])
@pytest.mark.parametrize("odd", ODD_METADATA)
async def test_odd_metadata(odd: str, way: str) -> None:
    """Metadata of whatever types is sent, or refused, as by gRPC."""

    async def nothing(context: Any) -> None:
        pass

    async def see(way: str) -> Any:
        async with aio(way, nothing) as (stub, _):
            try:
                call = call_of(stub, "Unary", metadata=ODD_METADATA[odd])
            except Exception as error:
                return type(error).__name__
            return await tell(call)

    await as_bare(way, see)


class Failed(Exception):
    """An error of a handler's that means nothing to anybody."""


def stating(context: Any) -> None:
    """Say how the call ends, and fail."""
    context.set_code(grpc.StatusCode.NOT_FOUND)
    context.set_details("no such thing")
    context.set_trailing_metadata((("hint", "look elsewhere"),))
    said = context.code(), context.details(), context.trailing_metadata()
    raise Failed(said)


@pytest.mark.parametrize("way", ["mesh", "interceptors"])
@pytest.mark.parametrize("method", ARITIES)
async def test_code_before_an_error(method: str, way: str) -> None:
    """A status code that a handler has set counts, whatever it raises then."""

    async def act(context: Any) -> None:
        stating(context)

    async def see(way: str) -> Any:
        async with aio(way, act) as (stub, _):
            call = call_of(stub, method)
            if many_requests(method):
                await call.done_writing()
            if many_responses(method):
                await call.read()
            ended = await tell(response_of(call, method))
            return ended, dict(await call.trailing_metadata())["hint"]

    assert await as_bare(way, see) == ("NOT_FOUND", "look elsewhere")


class Lean(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in gRPC's stubs alone
    """A handler that has no more than it needs."""

    request_deserializer = response_serializer = None

    def __init__(self, method: str, behaviour: Any) -> None:
        self.request_streaming = many_requests(method)
        self.response_streaming = many_responses(method)
        request = "stream" if self.request_streaming else "unary"
        response = "stream" if self.response_streaming else "unary"
        setattr(self, f"{request}_{response}", behaviour)


class Generic(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Serves handlers by method."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method."""
        return self._found.get(handler_call_details.method.rpartition("/")[2])


async def test_lean_handlers() -> None:
    """A handler needs only the behaviour of its arity."""

    async def see(way: str) -> Any:
        server = accord.Mesh("callee").server() if way == "mesh" else grpc.aio.server()
        found = {name: Lean(name, act) for name, act in raw.items()}
        server.add_generic_rpc_handlers((Generic(found),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            seen = []
            for method in ARITIES:
                call = call_of(Stub(channel), method)
                if many_requests(method):
                    await call.done_writing()
                seen.append(await tell(response_of(call, method)))
        await server.stop(None)
        return seen

    async def one(request: Any, context: Any) -> bytes:
        return b""

    async def many(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield b""

    raw = {name: many if many_responses(name) else one for name in ARITIES}
    await as_bare("mesh", see)


def test_no_interceptor() -> None:
    """What is no interceptor is refused when the channel is made, before a loop runs too."""
    nothing: Any = object()
    with pytest.raises(ValueError, match="interceptor"):
        accord.Mesh("caller").channel("127.0.0.1:1", interceptors=[nothing])


@pytest.mark.parametrize("path", ["NoSlash", "/test/Method", "no.first/Slash", "//", ""])
async def test_odd_paths(path: str) -> None:
    """A method may have any path: it is called, and not found."""

    async def nothing(context: Any) -> None:
        pass

    async def see(way: str) -> Any:
        async with aio(way, nothing) as (_, channel):
            call: Any = channel.unary_unary
            return await tell(call(path)(b""))

    await as_bare("mesh", see)
