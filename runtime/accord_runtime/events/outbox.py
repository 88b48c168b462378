"""The event table: a service's own record of what happened, and its outbox.

An event is appended in the transaction that makes it true. Its *position*, dense and in an order
that respects every key, it has from the beginning where one process alone writes; else the
publisher gives it one after the commit. Then it is published. Streams read the table by key and
sequence or by position; the notifier wakes them.

Everybody may read an event. What only one other service may know is in none: that service asks for
it. Fields that the contract marks with `debug_redact` are refused when an event is appended, and
taken out of events that an earlier version has written, whoever reads them.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from accord import current, event_policy, trace_headers
from accord.context import ANONYMOUS
from accord_runtime.database import Conflict, Row, Tx
from accord_runtime.events.versions import TooNew, Upcasters
from accord_runtime.grpc.ids import uuid7

MIGRATIONS: Final = [
    """
    CREATE TABLE events (
        event_id TEXT NOT NULL PRIMARY KEY,
        position BIGINT,
        key TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        type TEXT NOT NULL,
        version BIGINT NOT NULL,
        subject TEXT NOT NULL,
        payload BLOB NOT NULL,
        causation_id TEXT NOT NULL,
        trace TEXT NOT NULL,
        occurred_at DOUBLE PRECISION NOT NULL,
        UNIQUE (key, sequence)
    )
    """,
    "CREATE UNIQUE INDEX events_position ON events (position)",
    "CREATE INDEX events_new ON events (event_id) WHERE position IS NULL",
    "CREATE INDEX events_next ON events (key, sequence) WHERE position IS NULL",
]

LATER_MIGRATIONS: Final = ["ALTER TABLE events ADD COLUMN actor TEXT NOT NULL DEFAULT ''"]
"""Those that came after other tables of the runtime."""

MAX_BYTES: Final = 1_000_000
"""Bytes of an event: with its headers below the 1 MiB that a broker takes by default."""


@dataclass(frozen=True, slots=True)
class Event:
    """One committed event."""

    event_id: str
    position: int | None
    """Number among all events of the service, from 1; None until it has been given one."""
    key: str
    sequence: int
    """Number among the events of its key, from 1."""
    type: str
    """Full name of the payload's message."""
    version: int
    subject: str
    payload: bytes
    causation_id: str
    trace: str
    """Trace context of the transaction's cause, as JSON headers."""
    occurred_at: float
    actor: str = ""
    """Who had it happen, "spiffe://x/edge for 17"; empty: nobody who was identified, or a saga."""

    @property
    def headers(self) -> dict[str, str]:
        """Trace context as W3C headers."""
        return dict(json.loads(self.trace))

    def message(self) -> Message:
        """The payload, parsed, as it was written."""
        return _class_of(self.type).FromString(self.payload)

    def read(self, upcasters: Upcasters) -> Message:
        """The payload as today's code reads it.

        Raises:
            TooNew: a newer version of the code has written it.
        """
        try:
            kind = _class_of(self.type)
        except KeyError:
            raise TooNew(f"{self.type} is not known to this version") from None
        return upcasters.read(kind, self.version, self.payload)


COLUMNS: Final = ", ".join(Event.__slots__)


def event_time(seconds: float) -> Timestamp:
    """The time of an event as its readers see it: cut to microseconds."""
    moment = Timestamp()
    moment.FromNanoseconds(int(seconds * 1e6) * 1000)
    return moment


def _class_of(type_name: str) -> type[Message]:
    """The message of this full name. Raises KeyError: this version has none."""
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(type_name))


class Outbox:
    """Where the transactions of a service leave their events.

    After the commit of an event `publish` is called, and `changed` with its key. `service`: whose
    stream takes them; empty: nobody looks at their subjects.
    """

    def __init__(
        self,
        publish: Callable[[], None],
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        service: str = "",
    ) -> None:
        self._publish = publish
        self._changed = changed
        self._clock = clock
        self._begins = f"{service}." if service else ""

    def append(
        self, tx: Tx, event: Message, *, sequence: int | None = None, causation_id: str = ""
    ) -> Event:
        """Write an event in the transaction that makes it true.

        `sequence` is its number among the events of its key; without it, the last one plus 1: for
        who holds a lock on what the key names. `causation_id` names the event or call that caused
        it.

        Raises:
            Conflict: somebody else has appended this sequence; decide again.
            ValueError: the message is no event, is larger than `MAX_BYTES`, has a key that cannot
                travel in a header or a subject that does not begin with the service's name, or says
                what must not be published.
        """
        policy = event_policy(event)
        if policy is None:
            raise ValueError(f"{event.DESCRIPTOR.full_name} is no event")
        if not policy.subject.startswith(self._begins):
            subject = f"{event.DESCRIPTOR.full_name} has the subject {policy.subject!r}"
            raise ValueError(f"{subject}, which does not begin with {self._begins!r}")
        key = str(getattr(event, policy.key))
        if not key or key != key.strip() or not (key.isascii() and key.isprintable()):
            raise ValueError(f"{event.DESCRIPTOR.full_name} has the key {key!r}")
        if said := _said(event):
            raise ValueError(f"{event.DESCRIPTOR.full_name} says {', '.join(said)}, to everybody")
        if sequence is None:
            sql = "SELECT MAX(sequence) FROM events WHERE key = :key"
            sequence = (tx.value(sql, {"key": key}) or 0) + 1
        payload = event.SerializeToString(deterministic=True)
        if len(payload) > MAX_BYTES:
            raise ValueError(f"{event.DESCRIPTOR.full_name} has {len(payload)} bytes, too many")
        written = Event(
            event_id=uuid7(),
            position=None if tx.postgres else _next_position(tx),
            key=key,
            sequence=sequence,
            type=event.DESCRIPTOR.full_name,
            version=policy.version,
            subject=policy.subject,
            payload=payload,
            causation_id=causation_id,
            trace=json.dumps(trace_headers()),
            occurred_at=self._clock(),
            actor=_actor(),
        )
        tx.insert("events", {name: getattr(written, name) for name in Event.__slots__})
        tx.after_commit(self._publish)
        tx.after_commit(lambda: self._changed(key))
        return written

    def append_once(self, tx: Tx, event: Message, *same: str) -> None:
        """Like `append`, unless its key has an event of its type with the `same` fields as it."""
        kind, policy = event.DESCRIPTOR.full_name, event_policy(event)
        key = str(getattr(event, policy.key)) if policy else ""
        known = [each.message() for each in of_key(tx, key) if each.type == kind]
        fields = [[getattr(each, name) for name in same] for each in (*known, event)]
        if fields[-1] not in fields[:-1]:
            self.append(tx, event)


def _actor() -> str:
    call = current()
    return "" if call is None or call.principal == ANONYMOUS else call.actor


@cache
def _redacted(type_name: str) -> tuple[str, ...]:
    """The fields of an event that nobody may read."""
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(type_name)
    except KeyError:
        return ()  # written by a newer version
    return tuple(field.name for field in found.fields if field.GetOptions().debug_redact)


def _said(event: Message) -> list[str]:
    """The fields of an event that nobody may read, and that are set."""
    return [name for name in _redacted(event.DESCRIPTOR.full_name) if getattr(event, name)]


def _event(row: Row) -> Event:
    event = Event(**row)
    if _redacted(event.type) and (said := _said(message := event.message())):
        for name in said:
            message.ClearField(name)
        event = replace(event, payload=message.SerializeToString(deterministic=True))
    return event


def of_key(tx: Tx, key: str, *, after: int = 0, most: int | None = None) -> list[Event]:
    """The events of a key beyond a sequence, in order; up to `most` of them."""
    limit = "" if most is None else f" LIMIT {most:d}"
    rows = tx.all(
        f"SELECT {COLUMNS} FROM events WHERE key = :key AND sequence > :after ORDER BY sequence"
        + limit,
        {"key": key, "after": after},
    )
    return [_event(row) for row in rows]


def after_position(tx: Tx, position: int, most: int, types: Sequence[str] = ()) -> list[Event]:
    """Up to `most` events beyond a position, in order; if types are named, only of these."""
    names = {f"type{number}": name for number, name in enumerate(types)}
    among = f" AND type IN ({', '.join(f':{name}' for name in names)})" if names else ""
    rows = tx.all(
        f"SELECT {COLUMNS} FROM events WHERE position > :position{among}"
        " ORDER BY position LIMIT :most",
        {"position": position, "most": most, **names},
    )
    return [_event(row) for row in rows]


def head(tx: Tx, *, before: float = math.inf) -> int:
    """The highest position given to an event of before a time; 0 when there is none.

    Positions are given in the order of time, but for what was committed together.
    """
    low, high = 0, tx.value("SELECT MAX(position) FROM events") or 0
    while before < math.inf and low < high:
        middle = (low + high + 1) // 2
        at = tx.value("SELECT occurred_at FROM events WHERE position = :at", {"at": middle})
        low, high = (middle, high) if at < before else (low, middle - 1)
    return int(high)


def committed(tx: Tx) -> int:
    """How many events there are: the position that the last of them has, or will be given."""
    waiting: int = tx.value("SELECT COUNT(*) FROM events WHERE position IS NULL")
    return head(tx) + waiting


def keys_after(tx: Tx, position: int) -> tuple[int, list[str]]:
    """The highest position given, and the keys with events between `position` and it."""
    last = head(tx)
    if last == position:
        return last, []
    rows = tx.all(
        "SELECT DISTINCT key FROM events WHERE position > :position", {"position": position}
    )
    return last, [row["key"] for row in rows]


def _next_position(tx: Tx) -> int | None:
    """The position of the next event; None while there are some that wait for theirs."""
    row = tx.one(
        "SELECT MAX(position) AS head,"
        " EXISTS (SELECT 1 FROM events WHERE position IS NULL) AS waits FROM events"
    )
    assert row is not None
    return None if row["waits"] else (row["head"] or 0) + 1


def number(tx: Tx, most: int = 1000) -> int:
    """Give committed events without a position the next ones; return how many.

    Events of one key get positions in the order of their sequence. Only one
    process of a database may call it at a time: the holder of the publisher's lock.

    Raises:
        Conflict: another process numbers at the same time; nothing was written.
    """
    rows = tx.all(
        "SELECT key FROM events WHERE position IS NULL ORDER BY event_id LIMIT :most",
        {"most": most},
    )
    position = head(tx)
    for row in rows:
        position += 1
        # Ids of different processes may disagree by their clocks: the id gives the place to the
        # key, the sequence decides which of the key's events takes it.
        written = tx.execute(
            "UPDATE events SET position = :position WHERE position IS NULL AND event_id ="
            " (SELECT event_id FROM events WHERE key = :key AND position IS NULL"
            " ORDER BY sequence LIMIT 1)",
            {"position": position, "key": row["key"]},
        )
        if not written:
            raise Conflict("another process is numbering events")
    return len(rows)
