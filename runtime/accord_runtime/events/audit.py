"""Compares what a consumer has in its inbox with what the record of its source says.

The broker may lose messages, and forgets all of them in the end; the record does neither. What is
missing is taken from the record, in its order.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import UTC
from functools import partial
from typing import Final, Protocol, TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from accord import failure_of
from accord_runtime.database import Database, Lock, Tx
from accord_runtime.events import position
from accord_runtime.events.broker import MAX_AGE, SAID
from accord_runtime.events.position import Consumed

log = logging.getLogger(__name__)

R = TypeVar("R")

AUDIT: Final = 60.0
"""Seconds between audits."""

PASSED: Final = 4
"""Audits that are passed over while nothing comes: what was lost then is as a rule published again
by its source, which looks at its stream each ten seconds."""

AWAY: Final = 1.0
"""Seconds between audits while the broker is away: what it does not bring, the record does."""

SHARE: Final = 10
"""Where such an audit finds nothing, the pause after it is at least so many times as long as it."""

_AWAY: Final = "the broker is away"

GRACE: Final = 10.0
"""Seconds that an event is given to come by the broker before an audit looks for it."""

RETRY: Final = 5.0
"""Seconds after which a record that could not be read is tried again."""

BATCH: Final = 500
"""Events of the record that are compared in one transaction."""

_SAID: Final = (6, 120)
"""Failures in a row after which it is said that the record cannot be read, and said again."""


class Envelope(Protocol):
    """What is needed of an event in a record; a message with these fields will do."""

    event_id: str
    type: str
    version: int
    key: str
    sequence: int
    causation_id: str
    traceparent: str

    @property
    def occurred_at(self) -> Timestamp:
        """When it was committed."""

    @property
    def payload(self) -> Any:
        """The event itself."""


class Recorded(Protocol):
    """An event at its position in a record: what a `ReadEvents` answers."""

    position: int

    @property
    def event(self) -> Envelope:
        """The event."""


Record = Callable[[int, Sequence[str]], AsyncIterable[Recorded]]
"""Reads a source's record: a position and full names of types (none: all) -> what is there beyond
the position, in order, up to the end. It may yield other types, too. A position beyond the end is
an RPC error with the reason POSITION_IN_FUTURE."""


def reading(
    read_events: Callable[[R], AsyncIterable[Recorded]], request: Callable[..., R]
) -> Record:
    """The record behind a stub's `ReadEvents`, given the type of its requests."""
    return lambda position, types: read_events(request(after_position=position, types=types))


Keep = Callable[[Tx, Mapping[str, str], bytes], bool]
"""Puts an event, as CloudEvents headers and payload, into the inbox; False if it is there."""


class Audit:
    """The audit of one source by one consumer, which handles some types of its events."""

    def __init__(
        self, source: str, record: Record, types: Sequence[str], keep: Keep, database: Database
    ) -> None:
        self._source = source
        self._record = record
        self._types = types
        self._keep = keep
        self._database = database
        self._running = asyncio.Lock()
        self._failures = 0
        self._taken, self._cause = 0, ""  # what was not said yet, and why it was taken
        self._said = 0.0
        self.pause = AWAY
        """Seconds until the next `follow`: to look through a long record for rare events takes a
        while."""

    async def complete(self, lock: Lock, cause: str) -> None:
        """Take all that is missing, however young; waits for as long as the record is away."""
        while True:
            if await self._run(lock, math.inf, cause):
                return
            await asyncio.sleep(RETRY)

    async def check(self, lock: Lock, before: float) -> bool:
        """Take what is missing of the events of before a time, Unix seconds.

        False when the record cannot be read now.
        """
        return await self._run(lock, before, "the broker has not delivered them")

    async def follow(self, lock: Lock) -> bool:
        """Take all that there is, as the broker is away. False when the record cannot be read."""
        return await self._run(lock, math.inf, _AWAY)

    async def _run(self, lock: Lock, before: float, cause: str) -> bool:
        async with self._running:
            if cause != self._cause:
                self._say()
                self._cause, self._said = cause, 0.0
            began, taken = time.monotonic(), self._taken
            try:
                await self._compare(lock, before)
            except Exception as error:
                self._failures += 1
                if self._failures % _SAID[1] == _SAID[0]:
                    what = "cannot be read, and what the broker has lost waits for it"
                    log.warning("the record of %s %s: %s", self._source, what, error)
                return False
            self._failures, now = 0, time.monotonic()
            self.pause = max(AWAY, SHARE * (now - began) if self._taken == taken else 0.0)
            if cause != _AWAY or now - self._said >= SAID:
                self._say()
        return True

    def _say(self) -> None:
        """Say what was taken, and why."""
        if self._taken:
            level = logging.INFO if self._cause == _AWAY else logging.WARNING
            text = "%d events of %s were taken from its record: %s"
            log.log(level, text, self._taken, self._source, self._cause)
            self._taken, self._said = 0, time.monotonic()

    async def fetch(self, lock: Lock, types: Sequence[str], since: float) -> None:
        """Take the events of some types from a time on, Unix seconds, up to the position.

        For types that were not handled so far; waits for as long as the record is away.
        """
        while True:
            try:
                noted = await self._database.read(partial(position.read, source=self._source))
                batch = list[Recorded]()
                async for each in self._record(0, types):
                    if each.position > noted.position:
                        break
                    if each.event.type in types:
                        batch.append(each)
                    if len(batch) == BATCH:
                        await self._put(lock, batch, since)
                        batch = []
                return await self._put(lock, batch, since)
            except Exception as error:
                log.warning("what is new of %s waits for its record: %s", self._source, error)
            await asyncio.sleep(RETRY)

    async def _put(self, lock: Lock, batch: list[Recorded], since: float) -> None:
        keep = lambda tx: self._keep_all(tx, batch, since)  # noqa: E731
        await self._database.write(lock.guard(keep))

    def _keep_all(self, tx: Tx, batch: list[Recorded], since: float) -> int:
        """Those of some events that have happened since then go to the inbox; how many are new."""
        return sum(
            self._keep(tx, _headers(each.event), each.event.payload.value)
            for each in batch
            if each.event.occurred_at.ToMicroseconds() / 1e6 >= since
        )

    async def _compare(self, lock: Lock, before: float) -> None:
        read = partial(position.read, source=self._source)
        noted = await self._database.read(read)
        if noted.position and not await self._knows(noted):
            await self._begin_again(lock)
            noted = await self._database.read(read)
        batch = list[Recorded]()
        async for each in self._record(noted.position, self._types):
            if each.event.type not in self._types:
                continue
            if each.event.occurred_at.ToMicroseconds() / 1e6 > before:
                break
            batch.append(each)
            if len(batch) == BATCH:
                await self._take(lock, batch, noted.since)
                batch = []
        if batch:
            await self._take(lock, batch, noted.since)

    async def _knows(self, noted: Consumed) -> bool:
        """Whether the record is still the one that was read before."""
        try:
            # Of any type: in another record it may be of one that is not handled.
            async for each in self._record(noted.position - 1, ()):
                return (each.position, each.event.event_id) == (noted.position, noted.event_id)
        except Exception as error:
            failure = failure_of(error)
            if failure is None or failure.reason != "POSITION_IN_FUTURE":
                raise
        return False

    async def _take(self, lock: Lock, batch: list[Recorded], since: float) -> None:
        def take(tx: Tx) -> int:
            taken = self._keep_all(tx, batch, since)
            last = batch[-1]
            position.note(tx, self._source, position=last.position, event_id=last.event.event_id)
            return taken

        self._taken += await self._database.write(lock.guard(take))

    async def _begin_again(self, lock: Lock) -> None:
        log.critical(
            "the record of %s is not the one that was read before: its database was restored or"
            " replaced. What happened there since is lost, what came of it here is not; going on"
            ' from its beginning. See "Restored databases" in docs/operations.md',
            self._source,
        )
        changes = {"position": 0, "event_id": "", "since": time.time() - MAX_AGE}
        await self._database.write(
            lock.guard(lambda tx: position.note(tx, self._source, **changes))
        )


def _headers(event: Envelope) -> dict[str, str]:
    """What an event's message has in its headers, as far as the inbox keeps it."""
    return {
        "ce-id": event.event_id,
        "ce-type": event.type,
        "ce-subject": event.key,
        "ce-dataversion": str(event.version),
        "ce-sequence": str(event.sequence),
        "ce-time": event.occurred_at.ToDatetime(UTC).isoformat(),
        "ce-causationid": event.causation_id or "-",
        "traceparent": event.traceparent,
    }
