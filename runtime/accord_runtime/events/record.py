"""Streams a service's own record: what a `ReadEvents` answers, woken by the notifier."""

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from google.protobuf import any_pb2

from accord.errors import OutOfRange
from accord_runtime.database import Database, Tx
from accord_runtime.events.notifier import RECORD, Notifier
from accord_runtime.events.outbox import Event, after_position, committed, event_time, head
from accord_runtime.grpc import owner

BATCH: Final = 200
"""Events read at once."""

R = TypeVar("R")


class Asked(Protocol):
    """A request of a `ReadEvents`; a message with these fields will do."""

    after_position: int
    follow: bool

    @property
    def types(self) -> Sequence[str]:
        """Full names of the types that are wanted; empty for all."""


class RecordReader:
    """Reads the record of one service, for its callers."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier

    async def read(self, asked: Asked, response: Callable[..., R]) -> AsyncGenerator[R, None]:
        """The events beyond a position, as responses with a `position` and an `event`.

        None for a user who has something of their own: events are of all.

        Raises:
            OutOfRange: the position lies beyond the last event (POSITION_IN_FUTURE).
        """
        if owner.only() is not None:
            return
        types, position = list(asked.types), asked.after_position
        with self._notifier.watching(RECORD) as watch:
            last = await self._database.read(committed)
            if position > last:
                raise OutOfRange(
                    "POSITION_IN_FUTURE", f"after_position is {position}, the last event is {last}"
                )
            while True:
                batch, end = await self._database.read(
                    partial(_read, position=position, types=types)
                )
                for event in batch:
                    assert event.position is not None
                    if not asked.follow and event.position > last:
                        return
                    yield response(position=event.position, event=envelope(event))
                    position = event.position
                if len(batch) < BATCH:
                    position = max(position, end)  # Nothing of these types is in between.
                if not asked.follow and position >= last:
                    return
                if not batch:
                    await watch.wait()


def envelope(event: Event) -> dict[str, Any]:
    """The fields of an event's envelope, an `Envelope`."""
    return {
        "event_id": event.event_id,
        "type": event.type,
        "version": event.version,
        "subject": event.subject,
        "key": event.key,
        "sequence": event.sequence,
        "occurred_at": event_time(event.occurred_at),
        "causation_id": event.causation_id,
        "traceparent": event.headers.get("traceparent", ""),
        "payload": any_pb2.Any(type_url=f"type.googleapis.com/{event.type}", value=event.payload),
    }


def _read(tx: Tx, position: int, types: Sequence[str]) -> tuple[list[Event], int]:
    """A batch of events, and the position up to which there are no others of these types."""
    return after_position(tx, position, BATCH, types), head(tx)
