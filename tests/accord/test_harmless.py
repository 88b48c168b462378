"""What nobody asked for does not happen, with either kind of gRPC."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest

import accord
from accord.client.types import Details
from tests.accord.kit import SERVICE as ECHO
from tests.accord.kit import Message, Stub, collect, serving

SERVICE: Final = "accordtest.v1.BareService"
TOKEN: Final = (("authorization", "token"),)
ARITIES: Final = {"Unary": "unary_unary", "ServerStream": "unary_stream", "Timed": "unary_unary"}
KINDS = pytest.mark.parametrize("kind", ["aio", "sync"])


class Bare:
    """A server and a client of the service that states nothing, of one kind of gRPC."""

    def __init__(self, kind: str, caller: accord.Mesh, channel: Any) -> None:
        self.kind = kind
        self.caller = caller
        self.channel = channel

    def method(self, name: str) -> Any:
        """One of its methods."""
        return getattr(self.channel, ARITIES[name])(
            f"/{SERVICE}/{name}",
            request_serializer=Message.SerializeToString,
            response_deserializer=Message.FromString,
        )

    async def call(self, name: str, **options: Any) -> str:
        """The text of the answer, or of the first; or the name of the code."""
        method = self.method(name)

        def text(answers: Any) -> str:
            return str(answers.text if isinstance(answers, Message) else next(answers).text)

        try:
            if self.kind == "sync":
                found = await asyncio.to_thread(lambda: text(method(Message(), **options)))
            elif name == "ServerStream":
                found = text(await method(Message(), **options).read())
            else:
                found = text(await method(Message(), **options))
        except grpc.RpcError as error:
            return str(error.code().name)
        return found


@asynccontextmanager
async def bare(kind: str, handler: Callable[..., Any], **server: Any) -> AsyncIterator[Bare]:
    """Each method is answered by `handler`, a stream with one message."""

    def streamed(request: Any, context: Any) -> Any:
        yield handler(request, context)

    made = {
        name: getattr(grpc, f"{arity}_rpc_method_handler")(
            streamed if arity == "unary_stream" else handler,
            request_deserializer=Message.FromString,
            response_serializer=Message.SerializeToString,
        )
        for name, arity in ARITIES.items()
    }
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    running: Any = callee.server(**server) if kind == "aio" else callee.sync.server(**server)
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, made),))
    address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    started = running.start()
    if kind == "aio":
        await started
    try:
        yield Bare(
            kind,
            caller,
            caller.channel(address) if kind == "aio" else caller.sync.channel(address),
        )
    finally:
        await caller.close()
        stopped = running.stop(None)
        await (stopped if kind == "aio" else asyncio.to_thread(stopped.wait))


@KINDS
@pytest.mark.parametrize("name", ["Unary", "ServerStream", "Timed"])
async def test_a_deadline_is_the_callers_own(kind: str, name: str) -> None:
    """Without one there is none; a stated timeout is obeyed."""

    def left(request: Any, context: Any) -> Any:
        return Message(text=str(context.time_remaining()))

    async with bare(kind, left) as served:
        plain = await served.call(name)
        if name == "Timed":
            assert 10 < float(plain) < 21  # gRPC rounds up what it sends
        else:
            assert plain == "None" or float(plain) > 1e6  # gRPC with threads has no word for it
        assert 1 < float(await served.call(name, timeout=9)) < 10


@KINDS
@pytest.mark.parametrize("name", ["Unary", "ServerStream", "Timed"])
async def test_failures_open_no_circuit_and_are_not_retried(kind: str, name: str) -> None:
    """Neither by themselves nor because a timeout is stated; nor is a deep call refused."""
    calls = 0

    def failing(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 20:
            raise accord.Unavailable("DOWN")
        return Message(text="fine")

    async with bare(kind, failing) as served:
        for number in range(1, 21):
            assert await served.call(name) == "UNAVAILABLE"
            assert calls == number
        assert await served.call(name, metadata=(("accord-depth", "9"),)) == "fine"
        (route,) = served.caller.snapshot().routes
        assert route.breaker is None


@KINDS
async def test_nothing_is_shed(kind: str) -> None:
    """Calls that only wait are all answered, however many."""
    many, arrived, everybody = 150, 0, threading.Event()

    def enter() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == many:
            everybody.set()

    def waits(request: Any, context: Any) -> Any:
        enter()
        assert everybody.wait(60)
        return Message(text="fine")

    async def awaits(request: Any, context: Any) -> Any:
        enter()
        async with asyncio.timeout(60):
            while not everybody.is_set():  # noqa: ASYNC110 - of threads, too
                await asyncio.sleep(0.05)
        return Message(text="fine")

    async with bare(kind, awaits if kind == "aio" else waits) as served:
        method = served.method("Unary")
        if kind == "aio":
            answers = await asyncio.gather(*(method(Message()) for _ in range(many)))
        else:
            futures = [method.future(Message()) for _ in range(many)]
            answers = [await asyncio.to_thread(future.result, 60) for future in futures]
        assert [answer.text for answer in answers] == ["fine"] * many


class Token(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # of the stubs alone
    """A user's own: sends a token, and sees what comes of a call."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """As gRPC's own."""
        metadata = (*(details.metadata or ()), ("authorization", "token"))
        given = Details(details.method, details.timeout, metadata, None, None, None)
        call = continuation(given, request)
        self.seen.append(call.code().name)
        return call


class AioToken(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # as above
    """The same for grpc.aio."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """As gRPC's own."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", "token"))
        call = await continuation(details._replace(metadata=metadata), request)
        self.seen.append((await call.code()).name)
        return call


class Door(grpc.ServerInterceptor):  # type: ignore[type-arg]  # of the stubs alone
    """Lets nothing pass that has no token, gRPC's own services neither; and sees all that comes."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """As gRPC's own."""
        self.seen.append(details.method.rpartition("/")[2])
        if ("authorization", "token") in details.invocation_metadata:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        )


@asynccontextmanager
async def foreign(handler: Callable[..., Any], door: Door) -> AsyncIterator[str]:
    """A server that knows nothing of the library; its address. Its messages may be of any size."""
    server = grpc.server(
        ThreadPoolExecutor(8),
        interceptors=[door],
        options=[("grpc.max_receive_message_length", -1)],
    )
    method = grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=Message.FromString,
        response_serializer=Message.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(ECHO, {"Retried": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(server.stop(None).wait)


@KINDS
async def test_a_guarded_server_is_called_through_interceptors_of_ones_own(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """They see a call once, whose attempts all have what they add; nothing else is asked."""
    door, told = Door(), 0

    def third_time(request: Any, context: Any) -> Any:
        nonlocal told
        told += 1
        if told < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return request

    mesh = accord.Mesh("caller")
    async with foreign(third_time, door) as address:
        token: Any = AioToken() if kind == "aio" else Token()
        make: Any = mesh.channel if kind == "aio" else mesh.sync.channel
        channel = make(address, interceptors=[token])
        assert make(address, interceptors=[token]) is channel is not make(address)
        if kind == "aio":
            answer = await Stub(channel).Retried(Message(text="a"))
        else:
            answer = await asyncio.to_thread(Stub(channel).Retried, Message(text="a"))
        assert answer.text == "a"
        assert token.seen == ["OK"]
        assert door.seen == ["Retried"] * 3
        await mesh.close()
    assert "Watch" not in capfd.readouterr().err


@KINDS
async def test_large_messages_are_for_grpc_to_refuse(kind: str) -> None:
    """What is sent has no bound, what is received gRPC's own, and `options` win."""
    mesh, large = accord.Mesh("caller"), Message(text="x" * 5 * 1024 * 1024)

    async def code(**options: Any) -> str:
        if kind == "aio":
            call = Stub(mesh.channel(address, **options)).Retried(large, metadata=TOKEN)
            return str((await call.code()).name)
        channel = mesh.sync.channel(address, **options)
        future = Stub(channel).Retried.future(large, metadata=TOKEN)
        return str((await asyncio.to_thread(future.code)).name)

    async with foreign(lambda request, context: request, Door()) as address:
        assert await code() == "RESOURCE_EXHAUSTED"
        assert await code(options=[("grpc.max_receive_message_length", -1)]) == "OK"
        await mesh.close()


def test_a_channel_may_be_made_before_a_loop_runs() -> None:
    """With its stub, for all arities; it belongs to the loop in which it is used first."""
    mesh = accord.Mesh("any")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    channel = mesh.channel(address)
    assert isinstance(channel, grpc.aio.Channel)
    stub = Stub(channel)
    unary, uploads = stub.Unary, stub.ClientStream
    streams = [stub.ServerStream, stub.Bidi]

    def one(request: Any, context: Any) -> Any:
        return request if isinstance(request, Message) else next(request)

    def many(request: Any, context: Any) -> Any:
        yield one(request, context)

    behaviours = {"Unary": one, "ClientStream": one, "ServerStream": many, "Bidi": many}

    async def main() -> list[str]:
        port = int(address.rpartition(":")[2])
        async with serving(mesh, behaviours, port=port):
            texts = [(await unary(Message(text="a"))).text]
            texts.append((await uploads(iter([Message(text="b")]))).text)
            for stream, request in (
                (streams[0], Message(text="c")),
                (streams[1], iter([Message(text="d")])),
            ):
                texts += [message.text for message in await collect(stream(request))]
            assert mesh.channel(address) is channel
            await mesh.close()
        return texts

    assert asyncio.run(main()) == ["a", "b", "c", "d"]
    unused = accord.Mesh("any").channel("nowhere")
    with pytest.raises(AttributeError, match="before an event loop runs"):
        unused.get_state()
