"""Handlers that are plain functions, on a server of `grpc.aio`: they run in threads."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.policies.pushback import PUSHBACK_KEY
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure, serving
from tests.accord.server_kit import bare, rejected, trailers_of

METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]


class Work:
    """Handlers that note what they see."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.gone = threading.Event()
        self.closed: list[Any] = []

    def act(self, text: str, context: Any) -> None:
        assert accord.current() is not None
        if text == "abort":
            context.set_trailing_metadata((("x", "1"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        if text == "set":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            context.set_details("beyond")
        if text == "bug":
            raise RuntimeError("secret")
        if text == "hold":
            assert context.is_active()
            assert context.add_callback(self.gone.set)
            self.started.set()
            self.gone.wait(5)

    def handlers(self) -> dict[str, Any]:
        def unary(request: Any, context: Any) -> Any:
            self.act(request.text, context)
            return request

        def server_stream(request: Any, context: Any) -> Iterator[Any]:
            try:
                yield request
                self.act(request.text, context)
            finally:
                self.closed.append(threading.current_thread())

        def client_stream(requests: Any, context: Any) -> Any:
            for request in requests:
                self.act(request.text, context)
            return Message()

        def bidi(requests: Any, context: Any) -> Iterator[Any]:
            for request in requests:
                yield request
                self.act(request.text, context)

        return {
            "Unary": unary,
            "ServerStream": server_stream,
            "ClientStream": client_stream,
            "Bidi": bidi,
        }


async def finish(stub: Stub, method: str, text: str, **options: Any) -> Any:
    """Make a call and read it to its end."""
    request = Message(text=text)
    streamed = method in ("ClientStream", "Bidi")
    call = getattr(stub, method)(iter([request]) if streamed else request, **options)
    return await (call if method in ("Unary", "ClientStream") else collect(call))


@pytest.mark.parametrize("method", METHODS)
async def test_errors(method: str) -> None:
    """Aborts, codes that are set and bugs arrive as from a coroutine."""
    async with echo(Work().handlers()) as stub:
        aborted = await failure(finish(stub, method, "abort"))
        set_code = await failure(finish(stub, method, "set"))
        bug = await failure(finish(stub, method, "bug"))
    assert (aborted.code, aborted.message) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert (set_code.code, set_code.message) == (grpc.StatusCode.OUT_OF_RANGE, "beyond")
    assert (bug.code, "secret" in bug.message) == (grpc.StatusCode.INTERNAL, False)


@pytest.mark.parametrize("method", METHODS)
async def test_a_handler_is_told_that_its_call_has_ended(method: str) -> None:
    """`add_callback` wakes a handler when the deadline passes; no permit is held afterwards."""
    work = Work()
    async with bare(work.handlers()) as served:
        error = await failure(finish(served.stub, method, "hold", timeout=0.2))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(work.gone.is_set)
        await eventually(served.idle)
        if method == "ServerStream":
            await eventually(lambda: len(work.closed) == 1)


async def test_context_and_nested_calls() -> None:
    """A thread's nested sync call inherits deadline and depth; its failure says not to retry."""
    middle = accord.Mesh("middle")

    def leaf(request: Any, context: Any) -> Any:
        if request.text == "down":
            raise accord.Unavailable("DOWN", retry_after=0.0)
        current = accord.current()
        assert current is not None
        return Message(text=f"{current.depth} {context.time_remaining()}")

    def relay(request: Any, context: Any) -> Any:
        stub = Stub(middle.sync.channel(leaf_at))
        if request.text != "detach":
            return stub.Retried(request)
        with accord.detach():
            return stub.Retried(request)

    async with (
        serving(accord.Mesh("leaf"), {"Retried": leaf}) as leaf_at,
        serving(middle, {"Unary": relay}) as middle_at,
        grpc.aio.insecure_channel(middle_at) as channel,
    ):
        stub = Stub(channel)
        depth, left = (await stub.Unary(Message(), timeout=0.7)).text.split()
        assert depth == "1"
        assert float(left) < 0.7
        _, detached = (await stub.Unary(Message(text="detach"), timeout=0.7)).text.split()
        assert float(detached) > 1.5
        error = await rejected(stub.Unary(Message(text="down")))
        assert trailers_of(error)[PUSHBACK_KEY] == "-1"
        middle.sync.close()


async def test_pool_of_the_server() -> None:
    """Functions run in the pool that the server was given, streams as well."""
    seen: list[str] = []

    def unary(request: Any, context: Any) -> Any:
        seen.append(threading.current_thread().name)
        return request

    def stream(request: Any, context: Any) -> Iterator[Any]:
        seen.append(threading.current_thread().name)
        yield request

    with ThreadPoolExecutor(3, thread_name_prefix="mine") as pool:
        async with (
            serving(
                accord.Mesh("callee"),
                {"Unary": unary, "ServerStream": stream},
                migration_thread_pool=pool,
            ) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await asyncio.gather(*(Stub(channel).Unary(Message()) for _ in range(3)))
            await collect(Stub(channel).ServerStream(Message()))
    assert {name.partition("_")[0] for name in seen} == {"mine"}
