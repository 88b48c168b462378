"""One call upstream for all who read the same stream.

It has one reader of gRPC, which keeps the last messages; whoever reads here has a place in them and
no queue of its own. Who comes later, or again, joins if what it has not seen is still there, and
else has a call of its own. Who falls behind what is kept is waited for a moment, then cut, and may
come again.

What one user may read is shared with nobody else: the key names the user, and the service has
authorised that user when the call was opened.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc import StatusCode

from accord.edge.problem import EdgeError
from accord.policies.resume import SLOW_CONSUMER

MAX_EVENTS: Final = 256
MAX_BYTES: Final = 1024 * 1024
"""Kept of a stream, at most and of each; the last message in any case."""

PATIENCE: Final = 1.0
"""Seconds that all wait for the slowest reader when there is no more room."""

_WORN: Final = 10.0
"""Seconds after which UNAUTHENTICATED says that the user's token was too old to go on with."""

Open = Callable[[int], Any]
"""Opens the call behind a token of its messages: gRPC's call object."""


class Event:
    """A message of a stream."""

    __slots__ = ("message", "rendered", "size", "token")

    def __init__(self, message: Message, token: int) -> None:
        self.message = message
        self.token = token
        """0: it has none."""
        self.size = message.ByteSize()
        self.rendered: dict[str, bytes] = {}
        """By form: rendered once for all readers."""


class Upstream:
    """One call, which ends with its last reader."""

    def __init__(self, open_: Open, token: int, field: str, *, private: bool) -> None:
        """`field` has the token of a message; `private`: one reader, for whom it waits."""
        self.base = self.head = token
        """Tokens behind which what is kept begins, and with which it ends."""
        self.readers: set[Reader] = set()
        """Those who keep up."""
        self.open = 0
        """All of them."""
        self.ended = False
        self.first = 0
        """Number of the oldest message that is kept."""
        self.error: BaseException | None = None
        self.events: deque[Event] = deque()
        self._size = 0
        self._field = field
        self._private = private
        self._open = open_
        self._waiters: set[asyncio.Future[None]] = set()
        self._room = asyncio.Event()
        # Not the first reader's: its deadline and its trace are not the others'.
        self._task = asyncio.get_running_loop().create_task(self._pump(), context=Context())

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                opened, call = loop.time(), self._open(self.head)
                try:
                    async for message in call:
                        await self._keep(message)
                    return
                except grpc.RpcError as error:
                    worn = error.code() is StatusCode.UNAUTHENTICATED
                    if not (worn and self._field and loop.time() - opened > _WORN):
                        raise
                finally:
                    call.cancel()
        except Exception as error:
            self.error = self.error or error
        finally:
            self.ended = True
            self._wake()

    async def _keep(self, message: Message) -> None:
        event = Event(message, int(getattr(message, self._field)) if self._field else 0)
        while self.events and (
            len(self.events) >= MAX_EVENTS or self._size + event.size > MAX_BYTES
        ):
            behind = {reader for reader in self.readers if reader.at == self.first}
            if behind:
                self._room.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if self._private else PATIENCE):
                        await self._room.wait()
                        continue
            self.readers -= behind
            self._drop()
        self.events.append(event)
        self._size += event.size
        self.head = max(self.head, event.token)
        self._wake()

    def _drop(self) -> None:
        event = self.events.popleft()
        self.first += 1
        self._size -= event.size
        self.base = max(self.base, event.token)

    def taken(self, upto: int) -> None:
        """A reader has all before this number; of a private stream nobody needs it any more."""
        self._room.set()
        while self._private and self.events and self.first < upto:
            self._drop()

    def _wake(self) -> None:
        for waiter in self._waiters:
            self._wake_one(waiter)

    @staticmethod
    def _wake_one(waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until there is something new, or this time has passed."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(max(0.0, seconds), self._wake_one, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def end(self, error: BaseException | None = None) -> None:
        """End the call; `error` is what its readers are told."""
        self.error = self.error or error
        self._task.cancel()


class Reader:
    """A place in a stream."""

    def __init__(self, upstream: Upstream, token: int) -> None:
        self._upstream = upstream
        seen = sum(1 for each in upstream.events if each.token and each.token <= token)
        self.at = upstream.first + seen
        """Number of the message that it reads next."""

    async def read(self, seconds: float) -> Sequence[Event] | None:
        """What is new: nothing, if there is nothing within this time; None: it has ended.

        Raises what the stream has failed with; EdgeError: this reader has fallen behind.
        """
        upstream = self._upstream
        if self.at == upstream.first + len(upstream.events) and not upstream.ended:
            await upstream.wait(seconds)
        skip = self.at - upstream.first
        if skip < 0:
            text = "the reader did not keep up; it may come back"
            raise EdgeError(409, StatusCode.ABORTED, SLOW_CONSUMER, text)
        found = [event for number, event in enumerate(upstream.events) if number >= skip]
        self.at += len(found)
        upstream.taken(self.at)
        if found or not upstream.ended:
            return found
        if upstream.error is not None:
            raise upstream.error
        return None


class Hub:
    """The streams that are open."""

    def __init__(self) -> None:
        self._shared: dict[object, Upstream] = {}
        self._all: set[Upstream] = set()

    @contextmanager
    def reading(self, key: object | None, open_: Open, token: int, field: str) -> Iterator[Reader]:
        """A reader of a stream behind a token.

        Args:
            key: what is the same for all who may read it together; None: nobody may.
            open_: opens the call, if there is none to join.
            token: the last one that was seen; 0: none.
            field: of the messages, which has the token.
        """
        known = self._shared.get(key)
        if known is not None and not known.ended and known.base <= token <= known.head:
            upstream = known
        else:
            upstream = Upstream(open_, token, field, private=key is None)
            self._all.add(upstream)
            if key is not None and (known is None or known.ended or token < known.base):
                self._shared[key] = upstream
        reader = Reader(upstream, token)
        upstream.readers.add(reader)
        upstream.open += 1
        try:
            yield reader
        finally:
            upstream.readers.discard(reader)
            upstream.open -= 1
            if not upstream.open:
                upstream.end()
                self._all.discard(upstream)
                if self._shared.get(key) is upstream:
                    del self._shared[key]

    def __len__(self) -> int:
        return len(self._all)

    def close(self) -> None:
        """End all of them; their readers may come again, to whoever serves then."""
        for upstream in self._all:
            text = "the edge is being stopped"
            upstream.end(EdgeError(503, StatusCode.UNAVAILABLE, "STOPPING", text, retry_after=1.0))
