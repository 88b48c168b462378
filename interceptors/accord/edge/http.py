"""One request as ASGI gives it: its parts, bounded, and its answer."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from grpc import StatusCode

from accord.edge.limits import EdgeLimits
from accord.edge.problem import EdgeError

Scope = MutableMapping[str, Any]

_LINGER: Final = 1.0
"""Seconds for which a request that is refused is still taken in."""

_ALWAYS: Final = ((b"x-content-type-options", b"nosniff"),)


class Gone(Exception):
    """The client has gone away."""


class Request:
    """A request. `headers` has one that is there several times joined by a comma (RFC 9110)."""

    __slots__ = ("_watcher", "gone", "headers", "id", "path", "query", "receive", "scope", "send",
                 "started", "verb")  # fmt: skip

    def __init__(self, scope: Scope, receive: Any = None, send: Any = None) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.verb: str = scope.get("method", "GET")
        raw = scope.get("raw_path")
        self.path: str = quote(scope["path"]) if raw is None else raw.decode("latin-1")
        """Percent-encoded."""
        self.query: bytes = scope.get("query_string", b"")
        self.headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name, text = key.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        self.id = ""
        """Told in the answer as X-Request-Id."""
        self.started = False
        """Whether an answer has begun."""
        self.gone = False
        """Whether the client has gone away, and this task is being cancelled for it."""
        self._watcher: asyncio.Task[None] | None = None

    def check(self, limits: EdgeLimits) -> None:
        """That it is of a size that is read at all. Raises EdgeError."""
        code = StatusCode.INVALID_ARGUMENT
        if len(self.path) + len(self.query) > limits.target:
            raise EdgeError(414, code, "TARGET_TOO_LONG", "path and query are too long")
        size = sum(len(key) + len(value) for key, value in self.scope["headers"])
        if size > limits.headers:
            raise EdgeError(431, code, "HEADERS_TOO_LARGE", "the headers are too large")

    @property
    def has_body(self) -> bool:
        """Whether it comes with a body."""
        length = self.headers.get("content-length", "0")
        return length != "0" or "transfer-encoding" in self.headers

    async def body(self, limits: EdgeLimits) -> bytes:
        """The whole body. Raises EdgeError: it is too large, or too slow; Gone."""
        parts: list[bytes] = []
        receive = bounded(self.headers, self.receive, limits)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def discard(self, most: int) -> None:
        """Take in what a client is still sending, so that it reads the answer before the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while most > 0 and (message := await self.receive()).get("more_body"):
                    most -= len(message["body"])

    @contextmanager
    def watched(self, after: float) -> Iterator[None]:
        """Cancel this task when the client goes away, looking for it `after` so many seconds."""
        handle = asyncio.get_running_loop().call_later(after, self._watch, asyncio.current_task())
        try:
            yield
        finally:
            handle.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    def _watch(self, task: "asyncio.Task[Any] | None") -> None:
        async def until_gone() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            if task is not None:
                self.gone = True
                task.cancel()

        self._watcher = asyncio.ensure_future(until_gone())

    async def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.started = True
        found = [*headers, *_ALWAYS, (b"x-request-id", self.id.encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": found})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(
        self, status: int, body: bytes, kind: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a whole answer; `kind` is its type."""
        size = str(len(body)).encode()
        await self.begin(status, ((b"content-type", kind), (b"content-length", size), *headers))
        await self.write(b"" if self.verb == "HEAD" else body, more=False)


def bounded(headers: Mapping[str, str], receive: Any, limits: EdgeLimits) -> Any:  # as in ASGI
    """`receive` that raises EdgeError when the body is too large or too slow."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > limits.body):
        raise _too_large(limits)
    size, ends, complete = 0, asyncio.get_running_loop().time() + limits.body_timeout, False

    async def received() -> Any:
        nonlocal size, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(ends):
                message = await receive()
        except TimeoutError:
            text = f"the body has not come within {limits.body_timeout:g} s"
            code, close = StatusCode.DEADLINE_EXCEEDED, {"connection": "close"}
            raise EdgeError(408, code, "BODY_TOO_SLOW", text, close) from None
        size += len(message.get("body", b""))
        if size > limits.body:
            raise _too_large(limits, more=message.get("more_body", False))
        complete = not message.get("more_body", False)
        return message

    return received


def _too_large(limits: EdgeLimits, *, more: bool = True) -> EdgeError:
    text = f"the body has more than {limits.body} bytes"
    close = {"connection": "close"} if more else None
    return EdgeError(413, StatusCode.INVALID_ARGUMENT, "BODY_TOO_LARGE", text, close)


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
