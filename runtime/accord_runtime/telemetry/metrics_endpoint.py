"""`GET /metrics`: a service's metrics for Prometheus, on a port of their own.

A small HTTP server inside the event loop. Collecting takes milliseconds and is done in a thread;
requests, their size, their number and their time are bounded.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

MAX_CONNECTIONS: Final = 8
"""Further clients are disconnected."""
MAX_REQUEST: Final = 8192
"""Bytes of a request, headers included."""
TIMEOUT: Final = 5.0
"""Seconds for a request and its answer."""

_TEXT: Final = "text/plain; version=1.0.0; charset=utf-8"


class ScrapeServer:
    """Serves `collect()` until it is closed."""

    def __init__(self, collect: Callable[[], bytes]) -> None:
        self._collect = collect
        self._server: asyncio.Server | None = None
        self.connections = 0
        """Clients that are being answered."""
        self._collecting = asyncio.Lock()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError: it is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.connections > MAX_CONNECTIONS:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT):
                    writer.write(await self._answer(reader))
                    await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or the loop ends: asyncio.streams would log that (3.11)
        finally:
            self.connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            return _response("400 Bad Request")
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found")
        if method != b"GET":
            return _response("405 Method Not Allowed", extra="Allow: GET\r\n")
        async with self._collecting:
            body = await asyncio.to_thread(self._collect)
        return _response("200 OK", body, _TEXT)


def _response(status: str, body: bytes = b"", kind: str = "text/plain", extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n{extra}\r\n"
    )
    return head.encode() + body
