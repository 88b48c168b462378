"""What nobody asked for does not happen, with either kind of gRPC."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest

import accord
from tests.accord.kit import Message

SERVICE: Final = "accordtest.v1.BareService"
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
            assert 10 < float(plain) <= 20
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
