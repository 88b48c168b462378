"""Gives committed events their positions and publishes them, in that order.

One publisher per database, held by a lock. What the broker has acknowledged is kept
with the broker's own sequence, so that a stream that was recreated, lost its tail, was
emptied or has a hole is noticed and filled again from the record.
"""

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import quote

from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from accord_runtime.database import Database, Lock, Tx
from accord_runtime.events.broker import MAX_AGE, Broker, persistently
from accord_runtime.events.notifier import POLL, POSITIONS, RECORD, Notifier, wait
from accord_runtime.events.outbox import Event, after_position, head, number
from accord_runtime.telemetry import flow_spans
from accord_runtime.ticks import until_next

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    """
    CREATE TABLE relay (
        stream TEXT NOT NULL PRIMARY KEY,
        created TEXT NOT NULL,
        position BIGINT NOT NULL,
        acknowledged BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE relay_marks (
        stream TEXT NOT NULL,
        acknowledged BIGINT NOT NULL,
        position BIGINT NOT NULL,
        PRIMARY KEY (stream, acknowledged)
    )
    """,
]

LATER_MIGRATIONS: Final = [
    f"ALTER TABLE relay ADD COLUMN {column} BIGINT NOT NULL DEFAULT 0"
    for column in ("first", "deleted", "repeated", "repair")
]
"""Those that came after other tables of the runtime."""

APPENDED: Final = "appended"
"""What the database's processes are told when one that does not number has appended an event."""

BATCH: Final = 100
"""Events in flight to the broker at once; never two of one key."""

CHECK: Final = 10.0
"""Seconds between looks at the stream's identity and length."""

NOTE: Final = 1.0
"""Seconds between notes of what was acknowledged, and ..."""

NOTED: Final = 50
"""... events. What was not noted is published again after a crash, under ids that the broker
knows."""

_HOLES: Final = 10_000
"""Deleted messages up to which the broker is asked which they are."""

_ON_ITS_WAY: Final = 60.0
"""Seconds by which a message may be younger than its event."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the broker has got."""

    created: str = ""
    """When the stream was created, as the broker says it: its identity."""
    position: int = 0
    """Every event up to this position was acknowledged."""
    acknowledged: int = 0
    """The highest sequence of the stream that was acknowledged."""
    first: int = 0
    """The stream's first sequence when it was last compared."""
    deleted: int = 0
    """Messages that were missing behind it then."""
    repeated: int = 0
    """Up to this position, events are published again: under ids that the broker has not seen."""
    repair: int = 0
    """What is in these ids: the stream's last sequence when it was found to have lost events."""


def recover(mark: Mark, created: str, last: int, at_last: int, expired: int = 0) -> Mark:
    """Where to go on, given what the broker says of its stream now.

    Args:
        mark: what was noted.
        created: identity of the stream now.
        last: the stream's highest sequence now.
        at_last: the position that had been reached when the stream's highest
            acknowledged sequence was at most `last`.
        expired: the position of the last event that is too old for the broker.

    Returns:
        The mark, unless the stream was recreated (begin again behind `expired`)
        or lost its tail (go back to `at_last`). Publishing an event twice is harmless:
        the broker knows its id, and so does every inbox.
    """
    if mark.created != created:
        return Mark(created=created, position=expired)
    if last < mark.acknowledged:
        return Mark(created=created, position=at_last, acknowledged=last)
    return mark


def _discards(info: StreamInfo) -> bool:
    """Whether somebody has limited a stream by number or size: it would discard again."""
    limits = (info.config.max_msgs, info.config.max_bytes, info.config.max_msgs_per_subject)
    return any(limit is not None and limit > 0 for limit in limits)


def without_repeated_keys(batch: list[Event]) -> list[Event]:
    """The longest beginning of a batch that has no key twice.

    Two events of a key must not be in flight together: if the first failed and
    the second did not, they would arrive in the wrong order.
    """
    keys: set[str] = set()
    for index, event in enumerate(batch):
        if event.key in keys:
            return batch[:index]
        keys.add(event.key)
    return batch


class Publisher:
    """Publishes the events of one service to the stream that is named after it."""

    def __init__(
        self, service: str, database: Database, broker: Broker, notifier: Notifier
    ) -> None:
        self._service = service
        self._stream = service.upper()
        self._database = database
        self._broker = broker
        self._notifier = notifier
        self._committed = asyncio.Event()
        self._numbered = asyncio.Event()
        self._numbers = False
        self.position = 0
        """Up to where this process has published, or found published."""
        self.published = self.failed = 0
        """Events, and batches of them that the broker did not take, since the process began."""
        database.listen(APPENDED, self._committed.set)

    def wake(self) -> None:
        """An event was committed."""
        self._committed.set()
        if not self._numbers:
            self._database.notify(APPENDED)

    async def serve(self) -> None:
        """Number and publish until cancelled; needs no broker to number."""
        await persistently("relay", self._hold)

    async def _hold(self) -> None:
        try:
            async with self._database.exclusive("relay") as lock, asyncio.TaskGroup() as tasks:
                self._numbers = True
                tasks.create_task(self._number(lock))
                publish = lambda: self._broker.noting(self._publish(lock))  # noqa: E731
                tasks.create_task(persistently("publishing", publish))
        finally:
            self._numbers = False

    async def _number(self, lock: Lock) -> None:
        # What one process alone writes has its number, but for what is left of before.
        give, numbers = lock.guard(lambda tx: number(tx) > 0), True
        while True:
            self._committed.clear()
            while numbers and await self._database.write(give):
                self._database.notify(POSITIONS)
            numbers = self._database.shared
            self._notifier.changed(RECORD)
            self._numbered.set()
            await wait(self._committed, until_next(POLL))

    async def _publish(self, lock: Lock) -> None:
        jetstream = await self._broker.jetstream()
        mark = noted = await self._compare(lock, jetstream)
        self.position = mark.position
        look_at, noted_at = time.monotonic() + until_next(CHECK), 0.0
        try:
            while True:
                self._numbered.clear()
                read = partial(after_position, position=mark.position, most=BATCH)
                batch = without_repeated_keys(await self._database.look_up(read))
                if not batch:
                    await wait(self._numbered, until_next(CHECK) if mark == noted else NOTE)
                else:
                    mark = await self._sent(jetstream, mark, batch)
                due = mark.position - noted.position >= NOTED
                check = time.monotonic() >= look_at
                if mark != noted and (due or check or time.monotonic() - noted_at >= NOTE):
                    await self._database.write(lock.guard(partial(self._note, mark=mark)))
                    noted, noted_at = mark, time.monotonic()
                if check:
                    mark = noted = await self._compare(lock, jetstream)
                    look_at = time.monotonic() + until_next(CHECK)
        except Exception:
            if mark != noted:  # What is lost is found by what was there.
                await self._database.write(lock.guard(partial(self._note, mark=mark)))
            raise

    async def _sent(self, jetstream: JetStreamContext, mark: Mark, batch: list[Event]) -> Mark:
        try:
            return await self._send(jetstream, mark, batch)
        except Exception:
            self.failed += 1
            raise

    async def _send(self, jetstream: JetStreamContext, mark: Mark, batch: list[Event]) -> Mark:
        """Publish a batch; how far that is. Raises when any of it was not acknowledged."""
        spans = [flow_spans.publishing(event) for event in batch]
        acks = await asyncio.gather(
            *(
                jetstream.publish(
                    subject(event.subject, event.key),
                    event.payload,
                    headers={**headers(self._service, event), **_message_id(event, mark), **trace},
                    timeout=1,
                )
                for event, (_, trace) in zip(batch, spans, strict=True)
            )
        )
        for span, _ in spans:
            span.end()
        if any(not ack.duplicate and ack.seq <= mark.acknowledged for ack in acks):
            # With a sequence that it had given before.
            raise LookupError("the stream has lost events; comparing again")
        position = batch[-1].position
        assert position is not None
        highest = max(mark.acknowledged, *(ack.seq for ack in acks))
        self.published += len(batch)
        self.position = position
        return replace(mark, position=position, acknowledged=highest)

    async def _compare(self, lock: Lock, jetstream: JetStreamContext) -> Mark:
        """Compare what was noted with what the broker has, and go back if it has less."""
        info = await self._broker.ensure_stream(jetstream, self._service)
        created, last = str(info.created), info.state.last_seq
        first, deleted = info.state.first_seq, info.state.num_deleted or 0
        hole = await self._hole() if 0 < deleted <= _HOLES else 0
        age = min(info.config.max_age or MAX_AGE, MAX_AGE)  # Inboxes remember no longer.

        def compare(tx: Tx) -> tuple[Mark, Mark]:
            columns = ", ".join(Mark.__slots__)
            row = tx.one(
                f"SELECT {columns} FROM relay WHERE stream = :stream", {"stream": self._stream}
            )
            noted = Mark(**row) if row else Mark()
            expired = head(tx, before=time.time() - age)
            mark = recover(noted, created, last, self._at(tx, last), expired)
            # What it must have, as the others are too old for it. An empty stream begins at 0.
            due = noted.position - head(tx, before=time.time() - age + _ON_ITS_WAY)
            emptied = first > max(noted.first, 1) and info.state.messages < due
            lost = emptied or deleted > noted.deleted
            if mark == noted and lost and not _discards(info):
                before = 0 if emptied else self._at(tx, hole - 1)
                back = min(max(expired, before), noted.position)
                mark = replace(noted, position=back, repeated=noted.position, repair=last)
            return noted, mark

        noted, mark = await self._database.read(compare)
        if mark != noted and noted.created:
            log.warning(
                "stream %s has lost events; publishing again from position %d",
                self._stream,
                mark.position,
            )
        mark = replace(mark, first=first, deleted=deleted)
        if mark != noted:
            await self._database.write(lock.guard(lambda tx: self._restart(tx, mark)))
        return mark

    async def _hole(self) -> int:
        """The first sequence that is missing inside the stream."""
        client = await self._broker.client()
        request = f"$JS.API.STREAM.INFO.{self._stream}", b'{"deleted_details": true}'
        answer = json.loads((await client.request(*request, timeout=5)).data)
        return int(min(answer["state"].get("deleted") or [0]))

    def _at(self, tx: Tx, sequence: int) -> int:
        """The position that had been reached when nothing beyond a sequence was acknowledged."""
        sql = "SELECT MAX(position) FROM relay_marks WHERE stream = :stream AND acknowledged <= :at"
        return int(tx.value(sql, {"stream": self._stream, "at": sequence}) or 0)

    def _restart(self, tx: Tx, mark: Mark) -> None:
        tx.execute(
            "DELETE FROM relay_marks WHERE stream = :stream AND position > :position",
            {"stream": self._stream, "position": mark.position},
        )
        self._note(tx, mark)

    def _note(self, tx: Tx, mark: Mark) -> None:
        tx.insert(
            "relay",
            {"stream": self._stream, **asdict(mark)},
            on_conflict="(stream) DO UPDATE SET "
            + ", ".join(f"{column} = excluded.{column}" for column in Mark.__slots__),
        )
        # A mark a thousand events is fine enough to go back to, and stays small.
        coarse = mark.acknowledged // 1000 * 1000 + 999
        tx.insert(
            "relay_marks",
            {"stream": self._stream, "acknowledged": coarse, "position": mark.position},
            on_conflict="(stream, acknowledged) DO UPDATE SET position = excluded.position",
        )


def subject(kind: str, key: str) -> str:
    """Where an event is published: the subject of its kind, and its key as one token."""
    return f"{kind}.{quote(key, safe='').replace('.', '%2E')}"


def headers(service: str, event: Event) -> dict[str, str]:
    """The message's headers: CloudEvents 1.0 in binary mode, and the W3C trace context."""
    return {
        "Nats-Msg-Id": event.event_id,
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-source": f"/{service}",
        "ce-type": event.type,
        "ce-subject": event.key,
        "ce-dataversion": str(event.version),
        "ce-sequence": str(event.sequence),
        "ce-time": datetime.fromtimestamp(event.occurred_at, UTC).isoformat(),
        "ce-causationid": event.causation_id or "-",
        **({"ce-actor": event.actor} if event.actor else {}),
        **event.headers,
    }


def _message_id(event: Event, mark: Mark) -> dict[str, str]:
    """The id of a message that the broker must not take for one that it had, and lost."""
    again = event.position is not None and event.position <= mark.repeated
    return {"Nats-Msg-Id": f"{event.event_id}/{mark.repair}"} if again else {}
