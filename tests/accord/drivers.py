"""One text of a test for both drivers: `grpc.aio`, and gRPC with threads.

What a test awaits is done by `grpc.aio`, or by a thread that blocks meanwhile. A handler is written
as a coroutine or an asynchronous generator; with threads it is run by the loop of the test for the
thread that gRPC has given to the call, which waits for it, and it is cancelled when the call's
context calls back, as a function would be told. Threads get to see what a coroutine of `grpc.aio`
would: a call that is cancelled is a `CancelledError`, the end of a stream is `EOF`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Self

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.kit import Handlers, Stub, arity, eventually, handlers
from tests.accord.server_kit import Served

EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]

WAYS: Final = {
    "aio": "channels and servers of `grpc.aio`",
    "sync": "with threads; a call with one response is a future",
    "blocking": "with threads; a call with one response blocks, and has no call object",
}
"""How calls are made. Each is followed by " interceptors" if the mesh gives these alone."""


def ways(*names: str) -> pytest.MarkDecorator:
    """Run a test in these ways; without it, in those of `conftest.driver`."""
    return pytest.mark.parametrize("driver", names, indirect=True)


every_call: Final[pytest.MarkDecorator] = ways("aio", "sync", "blocking")
"""For what a driver does by other code for a future than for a call that blocks."""

every_way: Final[pytest.MarkDecorator] = ways(*WAYS, *(f"{way} interceptors" for way in WAYS))
"""As `every_call`, and on channels and servers that the mesh has not made."""


class Driver:
    """Servers and clients of one way, for one test."""

    def __init__(self, way: str) -> None:
        self.way, _, interceptors = way.partition(" ")
        self.own = not interceptors
        self.threads = ThreadPoolExecutor(200, thread_name_prefix="test")
        self.working: set[_Work] = set()
        """What handlers in threads are at work on."""

    @property
    def aio(self) -> bool:
        """Whether nothing is done by threads."""
        return self.way == "aio"

    async def in_thread(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What blocks, done."""
        run = partial(copy_context().run, work, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self.threads, run)

    def server(self, mesh: accord.Mesh, **options: Any) -> Any:
        """A server that has no handlers yet."""
        if self.own:
            return mesh.server(**options) if self.aio else mesh.sync.server(**options)
        if self.aio:
            return grpc.aio.server(interceptors=mesh.server_interceptors(), **options)
        interceptors = mesh.sync.server_interceptors()
        return grpc.server(self.threads, interceptors=interceptors, **options)

    async def start(self, server: Any, behaviours: Handlers | None = None, port: int = 0) -> str:
        """Start a server on a loopback port, with these handlers besides its own; its address."""
        if behaviours is not None:
            server.add_generic_rpc_handlers((handlers(self.behaviours(behaviours)),))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        started = server.start()
        if self.aio:
            await started
        return f"127.0.0.1:{bound}"

    async def stop(self, server: Any, grace: float | None = None) -> None:
        """Stop a server, and wait until it is over."""
        stopped = server.stop(grace)
        await (stopped if self.aio else self.in_thread(stopped.wait, 10))

    def function(self, behaviour: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """A coroutine as this driver takes it where it calls back: a fallback, for example."""
        loop = asyncio.get_running_loop()

        def called(*arguments: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(behaviour(*arguments), loop).result()

        return behaviour if self.aio else called

    def behaviours(self, found: Handlers) -> Handlers:
        """Handlers as this driver's servers take them."""
        if self.aio:
            return found
        return {name: _in_thread(self, behaviour) for name, behaviour in found.items()}

    @asynccontextmanager
    async def serving(
        self, mesh: accord.Mesh, behaviours: Handlers, *, port: int = 0, **options: Any
    ) -> AsyncIterator[str]:
        """A server of the mesh on a loopback port; yields its address."""
        server = self.server(mesh, **options)
        address = await self.start(server, behaviours, port)
        try:
            yield address
        finally:
            await self.stop(server)

    @asynccontextmanager
    async def calling(self, mesh: accord.Mesh, address: str, **options: Any) -> AsyncIterator[Stub]:
        """A client of a server; the mesh is closed in the end."""
        try:
            if self.own:
                yield self.stub(mesh, address, **options)
            elif self.aio:
                interceptors = mesh.client_interceptors("echo")
                async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
                    yield Stub(channel)
            else:
                with grpc.insecure_channel(address) as channel:
                    interceptors = mesh.sync.client_interceptors("echo")
                    yield self.asked(grpc.intercept_channel(channel, *interceptors))
        finally:
            await self.close(mesh)

    def stub(self, mesh: accord.Mesh, address: str, **options: Any) -> Stub:
        """A client on a channel of the mesh, which the test closes."""
        if self.aio:
            return Stub(mesh.channel(address, **options))
        return self.asked(mesh.sync.channel(address, **options))

    def asked(self, channel: grpc.Channel) -> Stub:
        """A client on a channel with threads."""
        return _Stub(self, channel)

    async def close(self, mesh: accord.Mesh) -> None:
        """Close the channels of a mesh."""
        await (mesh.close() if self.aio else self.in_thread(mesh.sync.close))

    @asynccontextmanager
    async def echo(self, behaviours: Handlers, **mesh: Any) -> AsyncIterator[Stub]:
        """A server and a client, each with a mesh of its own; `mesh` goes to both."""
        async with self.served(behaviours, accord.Mesh("callee", **mesh), **mesh) as (stub, _):
            yield stub

    @asynccontextmanager
    async def served(
        self, behaviours: Handlers, callee: accord.Mesh | None = None, **mesh: Any
    ) -> AsyncIterator[tuple[Stub, accord.Mesh]]:
        """A server, and a client whose mesh has these settings; yields the stub and this mesh."""
        caller = accord.Mesh("caller", **mesh)
        async with (
            self.serving(callee or accord.Mesh("callee"), behaviours) as address,
            self.calling(caller, address) as stub,
        ):
            yield stub, caller

    @asynccontextmanager
    async def bare(self, behaviours: Handlers, **mesh: Any) -> AsyncIterator[Served]:
        """A server of a mesh with these settings, and a client of `grpc.aio` without one."""
        found = accord.Mesh("callee", **mesh)
        async with (
            self.serving(found, behaviours) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Served(found, Stub(channel), channel)


class _Stub(Stub):
    """A client whose calls are made by threads, and awaited."""

    def __init__(self, driver: Driver, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self._driver = driver

    def __getattr__(self, method: str) -> Any:
        return partial(_call, self._driver, arity(method), super().__getattr__(method))

    def raw(self, method: str) -> Any:
        return partial(_call, self._driver, arity(method), super().raw(method))


def _call(driver: Driver, arity: str, found: Any, request: Any = None, **options: Any) -> Any:
    """Make a call at once, as `grpc.aio` does."""
    written: SimpleQueue[Any] = SimpleQueue()
    if hasattr(request, "__aiter__"):
        request = _read(request, asyncio.get_running_loop())
    elif request is None and arity.startswith("stream"):
        request = iter(written.get, EOF)
    if arity.endswith("stream"):
        return _Streamed(driver, written, partial(found, request, **options))
    if driver.way == "blocking":
        return _Blocking(driver, partial(found, request, **options))
    return _Called(driver, written, partial(found.future, request, **options))


def _read(requests: Any, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Requests that the test's loop makes, for a thread of gRPC's."""
    found = aiter(requests)
    while True:
        message = asyncio.run_coroutine_threadsafe(_next(found), loop).result()
        if message is EOF:
            return
        yield message


async def _next(messages: Any) -> Any:
    return await anext(messages, EOF)


class _Blocking:
    """A call that blocks its thread from now on."""

    def __init__(self, driver: Driver, make: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        self._answer = loop.run_in_executor(driver.threads, copy_context().run, make)

    def __await__(self) -> Any:
        return self._answer.__await__()


class _Called:
    """The call object of a call over threads, asked by a coroutine."""

    def __init__(self, driver: Driver, written: SimpleQueue[Any], make: Callable[[], Any]) -> None:
        self._driver = driver
        self._written = written
        self._call: Any = None
        self._problem: Exception | None = None
        try:
            self._call = make()
        except Exception as problem:  # `grpc.aio` raises it when the call is awaited
            self._problem = problem
        else:
            self._when_done(partial(written.put, EOF))

    def _when_done(self, callback: Callable[[], object]) -> None:
        self._call.add_done_callback(lambda _: callback())

    async def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Wait for what the call says; who does not wait any longer cancels it."""
        if self._problem is not None:
            raise self._problem
        try:
            return await self._driver.in_thread(question, *arguments)
        except grpc.FutureCancelledError:
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            self._call.cancel()
            raise

    def __await__(self) -> Any:
        return self._ask(self._result).__await__()

    def _result(self) -> Any:
        return self._call.result()

    async def code(self) -> Any:
        return await self._ask(self._call.code)

    async def details(self) -> Any:
        return await self._ask(self._call.details)

    async def initial_metadata(self) -> Any:
        return await self._ask(self._call.initial_metadata)

    async def trailing_metadata(self) -> Any:
        return await self._ask(self._call.trailing_metadata)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back in the loop."""
        loop = asyncio.get_running_loop()
        self._when_done(partial(loop.call_soon_threadsafe, callback, self))

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def done(self) -> bool:
        return bool(self._call.done())

    async def write(self, request: Any) -> None:
        """Send a request of a call that was made without them."""
        self._written.put(request)

    async def done_writing(self) -> None:
        """Send no more."""
        self._written.put(EOF)


class _Streamed(_Called):
    """The same of a stream of responses."""

    _cancelled = False

    def _when_done(self, callback: Callable[[], object]) -> None:
        if not self._call.add_callback(callback):
            callback()

    def cancel(self) -> bool:
        cancelled = super().cancel()
        self._cancelled = self._cancelled or cancelled
        return cancelled

    async def read(self) -> Any:
        """The next message, or EOF."""
        try:
            return await self._ask(next, self._call, EOF)
        except grpc.RpcError as error:
            if self._cancelled and error.code() is grpc.StatusCode.CANCELLED:
                raise asyncio.CancelledError from None
            raise

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message


def _in_thread(driver: Driver, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """A function, or a generator, that does what a coroutine or its generator does."""
    loop = asyncio.get_running_loop()

    def one(request: Any, context: Any) -> Any:
        with _Work(driver, loop, context) as work:
            return work.do(lambda: behaviour(work.requests(request), _Context(context)))

    def many(request: Any, context: Any) -> Iterator[Any]:
        with _Work(driver, loop, context) as work:
            found = behaviour(work.requests(request), _Context(context))
            try:
                while (message := work.do(partial(_next, found))) is not EOF:
                    yield message
            finally:
                work.do(found.aclose, always=True)

    if inspect.isasyncgenfunction(behaviour):
        return many
    return one if inspect.iscoroutinefunction(behaviour) else behaviour


class _Work:
    """What a handler does for one call, and whether anybody still wants it."""

    def __init__(self, driver: Driver, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        self._driver = driver
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._ended = not context.add_callback(self._told)

    def __enter__(self) -> Self:
        self._driver.working.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.working.discard(self)

    def _told(self) -> None:
        with suppress(RuntimeError):  # the test is over, and its loop closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    def do(self, step: Callable[[], Coroutine[Any, Any, Any]], *, always: bool = False) -> Any:
        """Let the loop do a step, and wait; `always`: even if the call has ended."""
        done: Future[Any] = Future()
        context = copy_context()

        def end(task: asyncio.Task[Any]) -> None:
            self._task = None
            if task.cancelled():
                done.set_exception(asyncio.CancelledError())
            elif error := task.exception():
                done.set_exception(error)
            else:
                done.set_result(task.result())

        def start() -> None:
            task = self._loop.create_task(step(), context=context)
            task.add_done_callback(end)
            self._task = None if always else task
            if self._ended and not always:
                task.cancel()

        self._loop.call_soon_threadsafe(start)
        try:
            return done.result()
        except asyncio.CancelledError:
            if self._ended:
                raise grpc.RpcError from None  # as gRPC tells a thread that nobody is there
            raise

    def requests(self, found: Any) -> Any:
        """The request, or those that gRPC's iterator waits for in another thread."""
        return self._stream(found) if hasattr(found, "__next__") else found

    async def _stream(self, found: Iterator[Any]) -> AsyncIterator[Any]:
        while (message := await self._next(found)) is not EOF:
            yield message

    async def _next(self, found: Iterator[Any]) -> Any:
        try:
            return await self._driver.in_thread(next, found, EOF)
        except grpc.RpcError:  # the call has ended
            raise asyncio.CancelledError from None


class _Context:
    """A servicer context of gRPC with threads, where a handler awaits what it does with one."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> None:
        if trailing_metadata:
            self._context.set_trailing_metadata(trailing_metadata)
        self._context.abort(code, details)

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._context.send_initial_metadata(metadata)


@asynccontextmanager
async def running(way: str) -> AsyncIterator[Driver]:
    """A driver, and its threads until all of them are done."""
    driver = Driver(way)
    try:
        yield driver
    finally:
        await eventually(lambda: not driver.working, 10)
        await asyncio.get_running_loop().run_in_executor(None, driver.threads.shutdown)
