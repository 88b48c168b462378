"""Receives other services' events: from JetStream into the inbox, then acknowledged.

The inbox is work of the executor: one row per event and handler. A handler that
fails holds up the later events of its own key and nothing else; the broker's
redelivery is never used for retries. An event that comes twice is recognised by
its id for as long as the broker could send it again.

One process of a database receives at a time, and whatever it did not get to keep
is asked for again before anything later: events of a key enter the inbox in
their order. Where to go on is decided by this database (`position.py`), and what
the broker has lost is taken from the source's record (`audit.py`), before anything
later, if the record can be read.

Nothing that comes is dropped. What is no event that this version can handle - headers missing or
absurd, another type or subject, a newer version, a payload that cannot be read - is kept as work
that parks with the reason, and is looked at anew when the operator retries it: after an upgrade it
may be an event. Who has come to handle another type is given the events of it that there were.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamState
from nats.js.errors import NotFoundError

from accord import use_trace
from accord_runtime.database import Database, DatabaseUnavailable, Lock, Tx
from accord_runtime.events import durable, position
from accord_runtime.events.audit import AUDIT, AWAY, GRACE, PASSED, RETRY, Audit, Record
from accord_runtime.events.broker import MAX_AGE, Broker, persistently
from accord_runtime.events.handling import EventHandler as EventHandler
from accord_runtime.events.handling import Handling, Ready
from accord_runtime.events.handling import Received as Received
from accord_runtime.events.message import CAME, occurred, pack, unpack
from accord_runtime.events.notifier import wait
from accord_runtime.events.position import Consumed
from accord_runtime.events.pull import pulling
from accord_runtime.events.versions import AS_WRITTEN, Upcasters
from accord_runtime.telemetry import flow_spans
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Permanent, Queue
from accord_runtime.work.table import Effect, Work

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    """
    CREATE TABLE inbox (
        consumer TEXT NOT NULL,
        event_id TEXT NOT NULL,
        received_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (consumer, event_id)
    )
    """,
    "CREATE INDEX inbox_received ON inbox (received_at)",
]

PREFETCH: Final = 100
"""Messages asked of the broker at once; it never has more unacknowledged ones out."""

NOTE: Final = 1.0
"""Seconds after which the position is noted though nothing was taken: what is not wanted may come
again."""

AT_ONCE: Final = 1.0
"""Seconds that a handler may take whose events are handled at once; else they become work."""

MEMORY: Final = MAX_AGE + 24 * 3600.0
"""Seconds for which an event is recognised; the broker keeps it for a day less."""

_SWEEP: Final = 3600.0


class Inbox:
    """What one service takes from the stream of another, by a consumer named after it.

    Events without a handler are left on the broker, and those that are not `wanted` passed over.
    `record` reads the source's record; without it, what the broker loses before it is received
    comes when the source publishes it again, and events of a type that was not handled before come
    from then on. `upcasters` read older versions.
    """

    def __init__(
        self,
        service: str,
        source: str,
        handlers: Mapping[type[Message], EventHandler],
        *,
        database: Database,
        broker: Broker,
        executor: Executor,
        record: Record | None = None,
        upcasters: Upcasters = AS_WRITTEN,
        wanted: Callable[[Any], bool] | None = None,
        at_once: bool = False,
    ) -> None:
        self._service = service
        self.source = source
        self._at_once = at_once
        self._stream = source.upper()
        self.queue = f"inbox:{source}"
        self._database = database
        self._broker = broker
        self._executor = executor
        self._handling = Handling(service, handlers, upcasters, wanted)
        self._subjects = [f"{kind}.*" for kind in self._handling.kinds.values()]
        executor.register(Queue(self.queue, self._handle))
        self._audit = record and Audit(
            source, record, list(self._handling.kinds), self._keep_wanted, database
        )
        # Up to when (Unix seconds) the broker has delivered all it had; infinite while it is away.
        self._delivered = math.inf
        self._came = 0.0  # when something came last
        self._look = asyncio.Event()
        self.coming = 0
        """Events that the broker has for it, as far as it has told."""
        self.at_once = 0
        """Those that were handled as they came, since the process began."""

    async def serve(self) -> None:
        """Receive until cancelled, whenever the broker is there."""
        await persistently(f"receiving from {self.source}", self._hold)

    async def _hold(self) -> None:
        async with self._database.exclusive(self.queue) as lock:
            # What is older may have been handled, and forgotten again.
            since = time.time() - MAX_AGE
            await self._database.write(
                lock.guard(partial(position.begin, source=self.source, since=since))
            )
            await self._take_up(lock, since)
            async with asyncio.TaskGroup() as tasks:
                what = f"receiving from {self.source}"
                tasks.create_task(persistently(what, partial(self._receive, lock)))
                tasks.create_task(persistently(what, partial(self._look_after, lock)))

    async def _take_up(self, lock: Lock, since: float) -> None:
        """Fetch what there was of the types that the version before did not handle."""
        noted = await self._database.read(partial(position.read, source=self.source))
        types, known = " ".join(sorted(self._handling.kinds)), noted.types.split()
        if types != noted.types:
            added = [kind for kind in self._handling.kinds if known and kind not in known]
            if added and self._audit:
                log.info("taking the events of %s so far: %s", self.source, ", ".join(added))
                await self._audit.fetch(lock, added, max(since, noted.since))
            note = partial(position.note, source=self.source, types=types)
            await self._database.write(lock.guard(note))

    async def _look_after(self, lock: Lock) -> None:
        """Audit once the broker has delivered what it had, and again and again.

        What it does not deliver, as it is away or has no leader, is taken from the record.
        """
        swept, settled, passed, pause, away = 0.0, 0.0, 0, AWAY, 0
        while True:
            await wait(self._look, pause)
            self._look.clear()
            until = min(time.time(), self._delivered)
            away = away + 1 if self._delivered == math.inf else 0
            pause = AWAY if away else AUDIT
            if away == 1:
                continue  # It may be back at once.
            if self._came < settled and not away and passed < PASSED:
                passed += 1
                continue
            if self._audit and until:
                audit, before = self._audit, until - GRACE
                if not await (audit.follow(lock) if away else audit.check(lock, before)):
                    settled, pause = 0.0, RETRY
                    continue
                settled, passed, pause = before, 0, audit.pause if away else AUDIT
            # What the audit has not come to must be recognised by it.
            if until - swept > _SWEEP:
                swept = until
                await self._database.write(partial(self._sweep, before=until - MEMORY))

    async def _receive(self, lock: Lock) -> None:
        jetstream = await self._broker.jetstream()
        at, delivered = await self._resume(lock, jetstream)
        # What was lost meanwhile is looked for as if it had come.
        self._came, noted, came = time.time(), time.monotonic(), 0
        try:
            async with pulling(self._broker, self._stream, self._service, PREFETCH) as pull:
                while True:
                    messages = await pull.next()
                    if messages is None:
                        return  # It is made again.
                    if self._delivered == math.inf:
                        self._delivered = 0.0  # The consumer is there.
                    if not messages:
                        if pull.clustered:  # It does not tell that the stream has no leader.
                            await jetstream.stream_info(self._stream)
                        self._nothing_waits()
                        continue
                    fetched = self._came = time.time()
                    for message in messages:
                        delivered += 1
                        told = message.metadata
                        if told.sequence.consumer != delivered or told.num_delivered != 1:
                            raise LookupError("messages were lost on their way; asking again")
                    last = messages[-1].metadata
                    self.coming, came = last.num_pending or 0, came + len(messages)
                    taken = list(filter(self._taken, messages))
                    if taken or time.monotonic() - noted > NOTE:
                        # Between what follows each other in the stream, it has lost nothing.
                        if last.sequence.stream != at.acknowledged + came:
                            stream = await jetstream.stream_info(self._stream)
                            if str(stream.created) != at.created:
                                raise LookupError("the stream was made anew")
                            at = await self._fill(lock, at, stream.state)
                        last_id = (messages[-1].headers or {}).get("ce-id", "")
                        at = at.reached(last.sequence.stream, last_id)
                        await self._write(lock, taken, at)
                        noted, came = time.monotonic(), 0
                    await messages[-1].ack()  # and with it those before
                    for message in taken:
                        self._note(message, fetched)
                    if not last.num_pending:
                        self._nothing_waits()
        finally:
            self._delivered = math.inf
            self._look.set()

    def _note(self, message: Msg, fetched: float) -> None:
        """Record that a message has come, if it is an event."""
        headers = message.headers or {}
        if not self._handling.problem(headers):
            kind = self._handling.kinds[headers["ce-type"]]
            flow_spans.received(headers, kind, message.metadata.timestamp, fetched)

    def _nothing_waits(self) -> None:
        if not self._delivered:
            self._look.set()
        self._delivered = time.time()

    async def _resume(self, lock: Lock, jetstream: JetStreamContext) -> tuple[Consumed, int]:
        """Make the durable consumer what it should be.

        It goes on where this database says; before that, where the stream is not as it was, or
        the event at the position was not noted: what comes again is recognised. Where the broker
        says otherwise, or where messages are out that were not acknowledged, it is made anew: else
        these would come again in half a minute, and later ones before them.

        Returns:
            The position, and how many messages the durable consumer has sent.
        """
        stream = await self._broker.ensure_stream(jetstream, self.source)
        created, last = str(stream.created), stream.state.last_seq
        at = await self._database.read(partial(position.read, source=self.source))
        known = at.created in ("", created)
        # A stream that has lost its tail ends before what was taken, or has something else there.
        lost = not known or last < at.acknowledged or not await self._holds(jetstream, at)
        start = at.acknowledged
        if lost:  # All that was ever published is in the record; else it is asked for again.
            start = last if known and self._audit else 0
        info = await durable.find(jetstream, self._stream, self._service)
        if info is not None and known and not at.last_id():
            start = min(start if at.created else last, durable.acknowledged(info))
        at = replace(at, created=created, acknowledged=start, deleted=at.deleted if known else 0)
        at = await self._fill(lock, at, stream.state, lost=lost)
        await self._database.write(lock.guard(partial(self._take, messages=[], at=at)))
        if info is not None and durable.fits(info, self._subjects, start):
            return at, durable.delivered(info)
        await durable.make(
            jetstream, self._stream, self._service, self._subjects, start=start, unacked=PREFETCH
        )
        return at, 0

    async def _holds(self, jetstream: JetStreamContext, at: Consumed) -> bool:
        """Whether the stream has what was taken last where it was, as far as that can be told."""
        if not (last_id := at.last_id()):
            return True
        try:
            found = await jetstream.get_msg(self._stream, at.acknowledged)
        except NotFoundError:
            return True
        return (found.headers or {}).get("ce-id") == last_id

    async def _fill(
        self, lock: Lock, at: Consumed, state: StreamState, *, lost: bool = False
    ) -> Consumed:
        """Take from the record, before anything later, what the stream has lost behind a position.

        Returns:
            The position, with all that taken.
        """
        deleted = state.num_deleted or 0
        lost = lost or state.first_seq > at.acknowledged + 1 or deleted != at.deleted
        if lost and self._audit:
            await self._audit.complete(lock, "the stream has lost messages")
        reached = max(at.acknowledged, state.first_seq - 1)
        return replace(at, acknowledged=reached, deleted=deleted)

    def _taken(self, message: Msg) -> bool:
        """Whether a message is kept: all but events that are not wanted."""
        headers = _headers(message)
        return bool(self._handling.problem(headers)) or self._handling.wants(
            headers["ce-type"], message.data
        )

    async def _write(self, lock: Lock, messages: Sequence[Msg], at: Consumed) -> None:
        """Take some messages: those that are handled at once together with what comes of them."""
        take = partial(self._take, messages=messages, at=at)
        if self._at_once and self.coming < PREFETCH and not self._database.shared:
            found = [
                await self._handling.ready(_headers(each), each.data, AT_ONCE) for each in messages
            ]
            ready = {each.event_id: each for each in found if each}
            try:
                await self._database.write(lock.guard(partial(take, ready=ready)))
                return
            except DatabaseUnavailable:
                raise
            except Exception as error:
                log.debug("events of %s are not handled at once: %s", self.source, error)
        await self._database.write(lock.guard(take))

    def _take(
        self,
        tx: Tx,
        messages: Sequence[Msg],
        at: Consumed,
        ready: Mapping[str, Ready] = MappingProxyType({}),
    ) -> None:
        for message in messages:
            headers, apart = _headers(message), ""
            if self._handling.problem(headers):
                # Under a name of its own: what it says of itself may be another's.
                number = message.metadata.sequence.stream
                apart = f"{message.subject}#{number} of {at.created}"
            event_id = apart or headers["ce-id"]
            if not self._keep(tx, headers, message.data, apart=apart, ready=ready.get(event_id)):
                tx.execute(
                    "UPDATE inbox SET received_at = :now WHERE consumer = :consumer"
                    " AND event_id = :event_id",
                    {"consumer": self.source, "event_id": event_id, "now": time.time()},
                )
        names = ("created", "acknowledged", "last", "deleted")
        position.note(tx, self.source, **{name: getattr(at, name) for name in names})

    def _keep_wanted(self, tx: Tx, headers: Mapping[str, str], payload: bytes) -> bool:
        wants = self._handling.wants(headers["ce-type"], payload)
        return wants and self._keep(tx, headers, payload)

    def _keep(
        self,
        tx: Tx,
        headers: Mapping[str, str],
        payload: bytes,
        *,
        apart: str = "",
        ready: Ready | None = None,
    ) -> bool:
        """Put an event into the inbox and to work; False if it is there already.

        `apart`: id and key of what is no event. `ready`: what is written instead, unless earlier
        events of its key are waiting.
        """
        event_id = apart or headers["ce-id"]
        row = {"consumer": self.source, "event_id": event_id, "received_at": time.time()}
        if not tx.insert("inbox", row, on_conflict="DO NOTHING"):
            return False
        key, seq = (apart, 0) if apart else (headers["ce-subject"], int(headers["ce-sequence"]))
        if ready and not table.waits(tx, self.queue, key):
            ready.write(tx)
            tx.after_commit(self._handled)
            return True
        with use_trace(headers):
            packed, flow_at = pack(headers, payload), occurred(headers)
            self._executor.enqueue(tx, self.queue, key, packed, flow_at=flow_at, seq=seq)
        return True

    def _handled(self) -> None:
        self.at_once += 1

    def _sweep(self, tx: Tx, before: float) -> None:
        mine = {"before": before, "consumer": self.source}
        sql = "DELETE FROM inbox WHERE received_at < :before AND consumer = :consumer"
        tx.execute(sql, mine)

    async def _handle(self, work: Work) -> Effect | None:
        headers, payload = unpack(work.payload)
        if problem := self._handling.problem(headers):
            raise Permanent(problem)
        flow_spans.processing(work, self._handling.kinds[headers["ce-type"]], headers["ce-id"])
        return await self._handling.effect(headers, payload, work.flow_at)


def _headers(message: Msg) -> dict[str, str]:
    return {**(message.headers or {}), CAME: message.subject}
