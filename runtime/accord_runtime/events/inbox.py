"""Receives other services' events: from JetStream into the inbox, then acknowledged.

The inbox is work of the executor: one row per event and handler. A handler that
fails holds up the later events of its own key and nothing else; the broker's
redelivery is never used for retries. An event that comes twice is recognised by
its id for as long as the broker could send it again.

One process of a database receives at a time, and whatever it did not get to keep
is asked for again before anything later: events of a key enter the inbox in
their order.
"""

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from accord import event_policy, use_trace
from accord_runtime.database import Database, Lock, Tx
from accord_runtime.events.broker import MAX_AGE, Broker, persistently
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

PATIENCE: Final = 3.0
"""Seconds after which the broker is asked anew: it forgets who waits when it is restarted."""

_SWEEP: Final = 3600.0
_NUMBER: Final = re.compile("[0-9]{1,18}")

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """An event of another service."""

    event_id: str
    """UUIDv7, the same at every delivery."""
    key: str
    """What orders it."""
    sequence: int
    """Number among the events of its key, from 1."""
    payload: M
    """The event."""


EventHandler = Callable[[Received[Any]], Awaitable[Effect | None]]


class Inbox:
    """What one service takes from the stream of another, by a consumer named after it.

    Events without a handler are left on the broker.
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
    ) -> None:
        self._service = service
        self._source = source
        self._stream = source.upper()
        self._queue = f"inbox:{source}"
        self._database = database
        self._broker = broker
        self._executor = executor
        self._handlers: dict[str, tuple[type[Message], EventHandler]] = {}
        self._subjects: list[str] = []
        for message, handler in handlers.items():
            policy = event_policy(message)
            if policy is None:
                raise ValueError(f"{message.DESCRIPTOR.full_name} is no event")
            self._handlers[message.DESCRIPTOR.full_name] = (message, handler)
            self._subjects.append(f"{policy.subject}.*")
        executor.register(Queue(self._queue, self._handle))

    async def serve(self) -> None:
        """Receive until cancelled, whenever the broker is there."""
        await persistently(f"receiving from {self._source}", self._hold)

    async def _hold(self) -> None:
        async with self._database.exclusive(self._queue) as lock:
            await persistently(f"receiving from {self._source}", partial(self._receive, lock))

    async def _receive(self, lock: Lock) -> None:
        jetstream = await self._broker.jetstream()
        delivered = await self._resume(jetstream)
        subscription = await jetstream.pull_subscribe_bind(
            durable=self._service, stream=self._stream
        )
        swept = 0.0
        try:
            while True:
                try:
                    # Without heartbeats, which let nats-py 2.16 leave a second pull request behind:
                    # the next event would wait for seconds.
                    messages = await subscription.fetch(PREFETCH, timeout=PATIENCE)
                except TimeoutError:
                    # Raises when the consumer has gone; _resume makes it again.
                    await jetstream.consumer_info(self._stream, self._service)
                    continue
                for message in messages:
                    delivered += 1
                    if message.metadata.sequence.consumer != delivered:
                        raise LookupError("messages were lost on their way; asking again")
                await self._database.write(lock.guard(partial(self._take, messages=messages)))
                for message in messages:
                    await message.ack()
                if time.time() - swept > _SWEEP:
                    swept = time.time()
                    await self._database.write(self._sweep)
        finally:
            await subscription.unsubscribe()

    async def _resume(self, jetstream: JetStreamContext) -> int:
        """Make the durable consumer what it should be; return how many messages it has sent.

        Where messages are out that were not acknowledged, it is made anew behind the last one
        that was: else they would come again in half a minute, and later ones before them.
        """
        await self._broker.ensure_stream(jetstream, self._source)
        acknowledged = 0
        try:
            info = await jetstream.consumer_info(self._stream, self._service)
        except NotFoundError:
            pass
        else:
            assert info.delivered is not None
            assert info.ack_floor is not None
            same = sorted(info.config.filter_subjects or [info.config.filter_subject or ""])
            if not info.num_ack_pending and same == sorted(self._subjects):
                return int(info.delivered.consumer_seq)
            # A stream that has lost its tail ends before what was acknowledged.
            stream = await jetstream.stream_info(self._stream)
            acknowledged = min(info.ack_floor.stream_seq, stream.state.last_seq)
            await jetstream.delete_consumer(self._stream, self._service)
        await jetstream.add_consumer(
            self._stream,
            ConsumerConfig(
                durable_name=self._service,
                filter_subjects=self._subjects,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=acknowledged + 1,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=30,
                max_ack_pending=PREFETCH,
                max_deliver=-1,
            ),
        )
        return 0

    def _take(self, tx: Tx, messages: list[Msg]) -> None:
        for message in messages:
            headers = message.headers or {}
            event_id, kind = headers.get("ce-id", ""), headers.get("ce-type", "")
            sequence = headers.get("ce-sequence", "")
            if kind not in self._handlers or not event_id or not _NUMBER.fullmatch(sequence):
                log.warning("a message on %s is no event of the contract", message.subject)
                continue
            row = {"consumer": self._source, "event_id": event_id, "received_at": time.time()}
            if not tx.insert("inbox", row, on_conflict="DO NOTHING"):
                tx.execute(
                    "UPDATE inbox SET received_at = :received_at WHERE consumer = :consumer"
                    " AND event_id = :event_id",
                    row,
                )
                continue
            with use_trace(headers):
                self._executor.enqueue(
                    tx,
                    self._queue,
                    headers.get("ce-subject", ""),
                    _pack(headers, message.data),
                    flow_at=_occurred(headers),
                    seq=int(sequence),
                )

    def _sweep(self, tx: Tx) -> None:
        tx.execute(
            "DELETE FROM inbox WHERE received_at < :before",
            {"before": time.time() - MAX_AGE - 24 * 3600.0},
        )

    async def _handle(self, work: Work) -> Effect | None:
        headers, payload = _unpack(work.payload)
        message, handler = self._handlers[headers["ce-type"]]
        try:
            event = message.FromString(payload)
        except DecodeError as error:
            raise Permanent(f"not a {headers['ce-type']}: {error}") from error
        received = Received(headers["ce-id"], work.key, int(headers["ce-sequence"]), event)
        return await handler(received)


def _occurred(headers: Mapping[str, str]) -> float | None:
    """When an event happened, Unix seconds; None if it does not say."""
    try:
        return datetime.fromisoformat(headers["ce-time"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None


def _pack(headers: Mapping[str, str], payload: bytes) -> bytes:
    kept = {name: value for name, value in headers.items() if name.startswith("ce-")}
    return json.dumps(kept).encode() + b"\n" + payload


def _unpack(packed: bytes) -> tuple[dict[str, str], bytes]:
    head, _, payload = packed.partition(b"\n")
    return json.loads(head), payload
