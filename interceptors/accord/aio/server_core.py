"""gRPC's server beneath ours, which one call cannot end.

From 1.85 on gRPC reads the path of a call in the loop that accepts calls, as UTF-8. A path that is
none ends the loop and with it the server; a single frame is enough. Nothing of gRPC's own tells the
path to anybody before that, so the loop cannot be spared. But loop and listener can be told apart:
here another loop takes over when one has ended, over the same connections. Calls that are running
go on, those that are queued are accepted, and the one to blame is reset. It costs as much as a call
that is answered.
"""

import asyncio
import gc
import logging
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc._cython import cygrpc
from grpc.aio import _server

from accord._log import log
from accord.server.types import GenericHandler

_KNOWN: Final = all(
    callable(getattr(cygrpc.AioServer, name, None))
    for name in ("_request_call", "_serving_task_crash_handler", "is_running", "shutdown", "start")
)
"""Whether this gRPC has what is used here; else its server is left as it is."""

RESET_PAUSE: Final = 0.1
"""Seconds in which stuck calls are gathered."""


class CoreServer(cygrpc.AioServer):  # type: ignore[misc]  # gRPC has no types for it
    """gRPC's own, whose loop is replaced when a call has ended it.

    gRPC must not know its methods (`add_registered_method_handlers`): a loop that ends leaves what
    it has asked for by their names behind.
    """

    def __init__(self, *arguments: Any) -> None:  # gRPC has no types for them
        """As gRPC's, whatever they are."""
        self.arguments = arguments
        self.handlers: list[GenericHandler] = []
        self._loop: _Loop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        super().__init__(*arguments)

    def add_generic_rpc_handlers(self, handlers: Iterable[GenericHandler]) -> None:
        """As gRPC's own."""
        found = tuple(handlers)
        super().add_generic_rpc_handlers(found)
        self.handlers += found

    async def shutdown(self, grace: float | None) -> None:
        """As gRPC's own, which fails once if its loop has ended."""
        with suppress(UnicodeDecodeError):
            await super().shutdown(grace)
        await super().shutdown(grace)  # returns at once if it is over
        if self._loop is not None:
            self._loop.stopped.set()
            await self._loop.shutdown(None)

    def _serving_task_crash_handler(self, task: asyncio.Task[None]) -> None:
        if not self._replace(task):
            super()._serving_task_crash_handler(task)

    def _replace(self, task: asyncio.Task[None]) -> bool:
        """Whether a loop, which has ended, makes way for another."""
        if task.cancelled() or not isinstance(task.exception(), UnicodeDecodeError):
            return False
        if self.is_running():
            ended, self._loop = self._loop, _Loop(self)
            self._begin(self._loop.start())
            if ended is None:
                log(logging.WARNING, "a call whose path is no UTF-8 was reset; others will be")
            else:
                self._begin(ended.shutdown(None))
        return True

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the event loop itself would let go of it
        task.add_done_callback(self._tasks.discard)


class _Loop(CoreServer):
    """A server without ports, which accepts the calls of another."""

    def __init__(self, origin: CoreServer) -> None:
        super().__init__(*origin.arguments)
        self.add_generic_rpc_handlers(origin.handlers)
        self._origin = origin
        self.stopped = asyncio.Event()

    async def _request_call(self) -> "cygrpc.RPCState":
        try:
            return await self._origin._request_call()
        except Exception:
            if not self._origin.is_running():
                await self.stopped.wait()  # gRPC would ask again and again
            raise

    def _replace(self, task: asyncio.Task[None]) -> bool:
        return self._origin._replace(task)


class Resets:
    """Resets calls of gRPC's that cannot be answered, because their readers have stopped.

    gRPC has nothing for it. It lets go of a call, and so resets its stream, when the handler is
    done and the caller has closed it; a task waits for that. The wait is ended, as if the caller
    had. The task is found as that which knows the handler's: some milliseconds for thousands of
    calls, so all that are stuck are looked for together.
    """

    def __init__(self) -> None:
        self._handlers: set[asyncio.Task[None] | None] = set()

    def reset(self) -> None:
        """The call that the current task handles is to be reset soon; its handler ends now."""
        if not self._handlers:
            asyncio.get_running_loop().call_later(RESET_PAUSE, self._sweep)
        self._handlers.add(asyncio.current_task())

    def _sweep(self) -> None:
        handlers, self._handlers = self._handlers, set()
        for task in asyncio.all_tasks():
            if task.get_name() == "rpc_task" and not handlers.isdisjoint(_known_to(task)):
                wait = getattr(task, "_fut_waiter", None)
                # Whoever waits for the handler's task has seen the caller's close already.
                if wait is not None and not wait.done() and not isinstance(wait, asyncio.Task):
                    # gRPC will set its result once more, when the call has ended.
                    wait.add_done_callback(_renew)
                    wait.set_result(None)


def _known_to(task: asyncio.Task[None]) -> set[asyncio.Task[None]]:
    """The tasks that a coroutine of gRPC's has in its variables."""
    scopes = gc.get_referents(task.get_coro())
    return {each for each in gc.get_referents(*scopes) if isinstance(each, asyncio.Task)}


def _renew(wait: "asyncio.Future[None]") -> None:
    asyncio.Future.__init__(wait, loop=wait.get_loop())


def bare(
    *,
    interceptors: Sequence["grpc.aio.ServerInterceptor[Message, Message]"],
    options: Sequence[tuple[str, str | int]],
    migration_thread_pool: Executor | None,
    maximum_concurrent_rpcs: int | None,
    compression: grpc.Compression | None,
) -> _server.Server:
    """As `grpc.aio.server`, beneath any instrumentation (see `client_channel.Channel`)."""
    theirs = cygrpc.AioServer
    if _KNOWN:
        cygrpc.AioServer = CoreServer  # whose arguments differ between versions
    try:
        return _server.Server(
            migration_thread_pool,
            (),
            interceptors,
            options,
            maximum_concurrent_rpcs,
            compression,
        )
    finally:
        cygrpc.AioServer = theirs
