"""The HTTP server: uvicorn in this process's event loop, with bounds on what clients may hold."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from accord_runtime.program import in_use

MAX_CONNECTIONS: Final = 4000
"""Further clients get 503 at once. A watcher of an order holds one."""

HEAD_SECONDS: Final = 10.0
"""For a client to say what it wants: the line and the headers of its request."""

IDLE_SECONDS: Final = 60
"""That a connection is kept on which nothing is asked."""

GRACE: Final = 5
"""Seconds that requests under way are given to end."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the process's own."""
        yield

    async def main_loop(self) -> None:
        """Keep the date; uvicorn's own looks ten times a second whether to end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), 1.0)


class _Joined:
    """A transport that sends what is written at once in twos: a head goes with its body."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # of the transport
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(self._parts) > 1:
            self._flush()
        else:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # one of two classes
    """uvicorn's, which ends a connection whose request is begun and not finished in time."""

    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Joined(transport, self.loop))
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._slow is None:
            self._slow = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None


def listen(address: str) -> socket.socket:
    """A socket that listens on `host:port`. Raises OSError: it is in use, by whom it says."""
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), backlog=BACKLOG)
    except OSError as error:
        raise in_use(address) from error


@contextlib.asynccontextmanager
async def serving(
    app: Callable[..., Awaitable[None]],
    address: str,
    failed: asyncio.Event,
    *,
    proxies: str = "",
    drain: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[None]:
    """Serve an ASGI app until the block is left; requests under way then have `GRACE` seconds.

    Args:
        app: answers.
        address: `host:port`.
        failed: is set if it ends before the block does.
        proxies: who is believed in `X-Forwarded-For`, addresses and networks; nobody: "".
        drain: ends what would not end by itself.

    Raises:
        OSError: the address is in use.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listen(address)]), name="HTTP server")
    task.add_done_callback(lambda _: None if server.should_exit else failed.set())
    try:
        yield
    finally:
        if drain is not None:
            await drain()
        server.should_exit = True
        server.ending.set()
        await task
