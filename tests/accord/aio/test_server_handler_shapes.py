"""The shapes of handlers that only `grpc.aio` has beside coroutines and asynchronous generators.

Coroutines that read and write by themselves, and plain functions, which run in threads. What all
shapes do alike is in `tests/accord/test_arities.py`.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.aio.server_handler_shapes import many
from accord.ops.v1 import mesh_pb2
from accord.policies.retry import PUSHBACK_KEY
from accord.v1 import policy_pb2
from tests.accord import test_arities as arities
from tests.accord.drivers import EOF
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure, path, serving
from tests.accord.server_kit import bare, rejected, trailers_of
from tests.accord.test_arities import METHODS, write_and_read

CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


class Work:
    """Handlers that note what they see."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.gone = threading.Event()
        self.closed: list[Any] = []

    def act(self, text: str, context: Any) -> None:
        assert accord.current() is not None
        if text == "refuse":
            raise accord.FailedPrecondition("SOLD_OUT", "no more")
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
            texts = []
            for request in requests:
                self.act(request.text, context)
                texts.append(request.text)
            return Message(text=",".join(texts))

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


class Log(arities.Work):
    """Coroutines that read and write by themselves, and do as the others."""

    def handlers(self) -> dict[str, Any]:
        async def server_stream(request: Any, context: Any) -> None:
            for index in range(3):
                await context.write(Message(text=f"{request.text} {index}"))
            await self.obey(request.text, context)

        async def client_stream(unused: Any, context: Any) -> Any:
            texts = []
            while (request := await context.read()) is not EOF:
                await self.obey(request.text, context)
                texts.append(request.text)
            return Message(text=",".join(texts))

        async def bidi(unused: Any, context: Any) -> None:
            while (request := await context.read()) is not EOF:
                await self.obey(request.text, context)
                await context.write(Message(text=request.text))

        return {"ServerStream": server_stream, "ClientStream": client_stream, "Bidi": bidi}


WRITERS = ["ServerStream", "ClientStream", "Bidi"]


@pytest.mark.parametrize("method", WRITERS)
async def test_reader_writer(method: str) -> None:
    """One that reads and writes by itself answers, fails and aborts as any other."""
    async with echo(Log().handlers()) as stub:
        call = arities.start(stub, method, "a")
        expected = ["a 0", "a 1", "a 2"] if method == "ServerStream" else ["a"]
        assert expected == await arities.finish(call, method)
        assert await call.code() is grpc.StatusCode.OK
        for text, code in (
            ("refuse", "FAILED_PRECONDITION"),
            ("abort", "NOT_FOUND"),
            ("set", "OUT_OF_RANGE"),
            ("bug", "INTERNAL"),
        ):
            error = await failure(arities.finish(arities.start(stub, method, text), method))
            assert error.code.name == code
            assert "secret" not in error.message


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
@pytest.mark.parametrize("method", WRITERS)
async def test_reader_writer_is_cancelled(method: str, ending: str) -> None:
    """It is cancelled when its caller does so, or the deadline passes."""
    log = Log()
    async with echo(log.handlers()) as stub:
        timeout = 0.15 if ending == "deadline" else None
        call = arities.start(stub, method, "hold", timeout=timeout)
        reading = asyncio.ensure_future(arities.finish(call, method))
        if ending == "cancel":
            await eventually(lambda: log.started == 1)
            call.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
            await reading
        code = {"cancel": grpc.StatusCode.CANCELLED, "deadline": grpc.StatusCode.DEADLINE_EXCEEDED}
        assert await call.code() is code[ending]
        await eventually(lambda: log.cancelled == log.started)


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
@pytest.mark.parametrize("shape", ["reader-writer", "function"])
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

    async def reading(unused: Any, context: Any) -> Any:
        with noting():
            while await context.read() is not EOF:
                pass
        return Message()

    def in_thread(requests: Any, context: Any) -> Any:
        with noting():
            list(requests)
        return Message()

    upload = reading if shape == "reader-writer" else in_thread
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


@pytest.mark.parametrize("shape", ["reader-writer", "function"])
async def test_write_and_read(shape: str) -> None:
    """Requests are read one by one, each when the one before is answered."""
    async with echo(Log().handlers() if shape == "reader-writer" else Work().handlers()) as stub:
        await write_and_read(stub)


@pytest.mark.parametrize("method", METHODS)
async def test_functions(method: str) -> None:
    """Answers, refusals, aborts, codes that are set and bugs arrive as from a coroutine."""
    async with echo(Work().handlers()) as stub:
        answer = await finish(stub, method, "a")
        assert [message.text for message in (answer if isinstance(answer, list) else [answer])] == [
            "a"
        ]
        refused = await failure(finish(stub, method, "refuse"))
        aborted = await failure(finish(stub, method, "abort"))
        set_code = await failure(finish(stub, method, "set"))
        bug = await failure(finish(stub, method, "bug"))
    assert (refused.reason, refused.message, refused.domain) == ("SOLD_OUT", "no more", "callee")
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


async def test_a_thread_keeps_what_its_call_holds() -> None:
    """A place and a key are not free before the function has returned, whoever has gone."""
    ran, release = [], threading.Event()

    class Nothing:
        async def lookup(self, scope: accord.Scope) -> None:
            return None

    def put(request: Any, context: Any) -> Any:
        ran.append(request.text)
        release.wait(5)
        return request

    key = accord.idempotency_key("k")
    async with bare({"Put": put}, idempotency=Nothing()) as served:
        first = await failure(served.stub.Put(Message(), timeout=0.2, metadata=key))
        assert first.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await failure(served.stub.Put(Message(), timeout=0.2, metadata=key))
        assert len(ran) == 1
        calls = served.mesh.control.limiter
        await eventually(lambda: calls.snapshot().in_flight < 2)  # the second is being cancelled
        assert calls.snapshot().in_flight == 1
        release.set()
        await eventually(served.idle)
        await served.stub.Put(Message(), metadata=key)
    assert len(ran) == 2


async def test_work_that_has_not_begun() -> None:
    """A call that ends while it waits for a thread gives back its place, and is not worked on."""
    ran, release = [], threading.Event()

    def work(request: Any, context: Any) -> Any:
        ran.append(request.text)
        release.wait(5)
        return request

    mesh = accord.Mesh("callee")
    with ThreadPoolExecutor(1) as pool:
        async with (
            serving(mesh, {"Unary": work}, migration_thread_pool=pool) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            first = Stub(channel).Unary(Message(text="first"))
            await eventually(lambda: bool(ran))
            await failure(Stub(channel).Unary(Message(text="second"), timeout=0.1))
            await eventually(lambda: mesh.control.limiter.snapshot().in_flight == 1)
            release.set()
            await first
    assert ran == ["first"]


async def test_thread_that_waits_for_a_request() -> None:
    """A time limit ends an upload whose caller has fallen silent, and its function is told."""
    ends: list[str] = []

    def upload(requests: Any, context: Any) -> Any:
        try:
            ends.extend(request.text for request in requests)
        except grpc.RpcError:
            ends.append("gone" if not context.is_active() else "active")
            raise
        return Message()

    async with bare({"ClientStream": upload}) as served:
        policy = policy_pb2.MethodPolicy(timeout=Duration(nanos=200_000_000))
        served.mesh.control.overrides.set(path("ClientStream"), mesh_pb2.Override(policy=policy))
        call = served.stub.ClientStream()
        await call.write(Message(text="a"))
        error = await failure(call)
        await eventually(served.idle)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ends == ["a", "gone"]


async def test_generator_is_closed_in_a_thread() -> None:
    """A generator whose caller has gone runs its `finally` in a thread, and holds its place."""
    closing, release = [], threading.Event()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        try:
            while True:
                yield request
        finally:
            assert accord.current() is not None
            closing.append(threading.current_thread())
            release.wait(5)

    async with bare({"ServerStream": stream}) as served:
        call = served.stub.ServerStream(Message(text="x" * 100_000))
        await call.read()
        call.cancel()
        await eventually(lambda: bool(closing))
        assert not served.idle()
        release.set()
        await eventually(served.idle)
    assert closing[0] is not threading.main_thread()


async def test_generator_is_closed_by_a_busy_pool() -> None:
    """A generator is closed even if its call is cancelled again before a thread is free for it."""
    closed, waiting, gate = [], asyncio.Event(), threading.Event()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield request
        finally:
            closed.append(CALLER.get())

    class Context:
        async def write(self, message: Any) -> None:
            waiting.set()
            await asyncio.Event().wait()

    CALLER.set("me")
    with ThreadPoolExecutor(1) as pool:
        call: Any = many(stream, pool)(Message(), Context())  # type: ignore[arg-type]
        task = asyncio.create_task(call)
        await waiting.wait()
        pool.submit(gate.wait)
        for _ in range(2):
            task.cancel()
            await asyncio.wait({task}, timeout=0.01)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed == ["me"]  # not by the collector, which knows nothing of the call


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

    def forward(request: Any, context: Any) -> Any:
        try:
            return relay(request, context)
        except grpc.RpcError:
            context.abort(grpc.StatusCode.UNAVAILABLE, "below")

    async with (
        serving(accord.Mesh("leaf"), {"Retried": leaf}) as leaf_at,
        serving(middle, {"Unary": relay, "Forward": forward}) as middle_at,
        grpc.aio.insecure_channel(middle_at) as channel,
    ):
        stub = Stub(channel)
        depth, left = (await stub.Unary(Message(), timeout=0.7)).text.split()
        assert depth == "1"
        assert float(left) < 0.7
        _, detached = (await stub.Unary(Message(text="detach"), timeout=0.7)).text.split()
        assert float(detached) > 1.5
        for call in (stub.Unary, stub.Forward):
            error = await rejected(call(Message(text="down")))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
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
