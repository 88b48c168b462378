"""What a handler sees of its call: messages in and out, and the servicer context.

The interceptor takes serialisation over from gRPC, which would answer a request that it cannot
decode with INTERNAL and a response that it cannot encode with UNKNOWN.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from accord.aio import EOF
from accord.aio.failure import exhausted
from accord.aio.watchdog import Watchdog
from accord.errors import InvalidArgument
from accord.hooks import FieldViolation, Validator
from accord.policies.pushback import MARK, PUSHBACK_KEY

_SILENT: Final = (None, 0, grpc.StatusCode.OK)


class Codec:
    """Decodes and validates the requests of one method, and encodes its responses."""

    __slots__ = ("_deserialize", "_serialize", "_validate")

    def __init__(
        self,
        deserialize: Callable[[bytes], Any] | None,
        serialize: Callable[[Any], bytes] | None,
        validate: Validator | None,
    ) -> None:
        self._deserialize = deserialize
        self._serialize = serialize
        self._validate = validate

    def decode(self, raw: bytes) -> Any:
        """The request. Raises InvalidArgument if it is garbage or breaks a rule."""
        if self._deserialize is None:
            return raw
        try:
            request = self._deserialize(raw)
        except Exception:  # whatever a deserialiser raises, it is the bytes that are wrong
            problem = FieldViolation("", "the request cannot be decoded")
            raise InvalidArgument(problem, reason="UNDECODABLE") from None
        violations: Sequence[FieldViolation] = self._validate(request) if self._validate else ()
        if violations:
            raise InvalidArgument(*violations)
        return request

    def encode(self, response: Any) -> bytes:
        """The response's bytes. Raises TypeError or ValueError for what is no response."""
        if self._serialize is None:
            return response  # type: ignore[no-any-return]
        return self._serialize(response)


class Requests:
    """The requests of a client stream, each decoded and validated as it is read."""

    def __init__(self, context: "ServerContext") -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is EOF:
            raise StopAsyncIteration
        return request


class ServerContext:
    """gRPC's servicer context, with messages instead of bytes and without UNKNOWN."""

    def __init__(self, context: Any, codec: Codec, watchdog: Watchdog) -> None:
        self._context = context
        self._codec = codec
        self._watchdog = watchdog
        self._read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """The next request or EOF. Raises InvalidArgument, which names the item."""
        raw = await self._context.read()
        self._watchdog.touch()
        if raw is EOF:
            return raw
        try:
            request = self._codec.decode(raw)
        except InvalidArgument as error:
            error.metadata["item"] = str(self._read)
            raise
        self._read += 1
        return request

    async def write(self, message: Any) -> None:
        """Send one response."""
        await self._context.write(self._codec.encode(message))
        self._watchdog.touch()

    async def abort(
        self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()
    ) -> None:
        """End the call with a status. Raises AbortError."""
        trailers = tuple(trailing_metadata)
        # While a nested call's error is being handled, it is the reason for this one.
        if exhausted(sys.exception()) and all(key != PUSHBACK_KEY for key, _ in trailers):
            trailers += ((PUSHBACK_KEY, MARK),)
        await self._context.abort(known(code), details, trailers)

    async def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_code(self, code: Any) -> None:
        """Set the status code of the answer."""
        self._context.set_code(known(code))

    def failed(self) -> bool:
        """Whether the handler has set a status code that is not OK."""
        return self._context.code() not in _SILENT


class SyncContext:
    """The context of a handler that runs in a thread."""

    def __init__(self, context: ServerContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def abort(self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()) -> None:
        """End the call with a status. Raises AbortError."""
        self._wait(self._context.abort(code, details, trailing_metadata))

    def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        self._wait(self._context.abort_with_status(status))

    def send_initial_metadata(self, metadata: Any) -> None:
        """As gRPC's own."""
        self._wait(self._context.send_initial_metadata(metadata))

    def is_active(self) -> bool:
        """Whether the call has not ended yet."""
        return not self._context.done()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended; False if it has."""
        if self._context.done():
            return False
        self._context.add_done_callback(lambda _: callback())
        return True

    def requests(self) -> Iterator[Any]:
        """The requests of a client stream, for a `for` loop in the thread."""
        while (request := self._wait(self._context.read())) is not EOF:
            yield request


def known(code: Any) -> Any:
    """`code`, but INTERNAL instead of UNKNOWN, which tells a caller nothing."""
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNKNOWN.value[0]):
        return grpc.StatusCode.INTERNAL
    return code
