"""Receives other services' events: from JetStream into the inbox, then acknowledged.

The inbox is work of the executor: one row per event and handler. A handler that
fails holds up the later events of its own key and nothing else; the broker's
redelivery is never used for retries. An event that comes twice is recognised by
its id, and its number, for as long as the broker could send it again.
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from accord.contract import event_policy
from accord.telemetry import HEADERS, use_trace
from services.runtime.broker import MAX_AGE, Broker, ensure_stream, persistently
from services.runtime.database import Database, Tx
from services.runtime.executor import Effect, Executor, Permanent, Work

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

_SWEEP: Final = 3600.0

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


class Consumer:
    """What one service takes from the stream of another.

    Args:
        service: who receives; the durable consumer is named after it.
        source: whose events.
        handlers: event message -> what to do with it. Other events are left on
            the broker.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._source = source
        self._queue = f"inbox:{source}"
        self._database = database
        self._broker = broker
        self._executor = executor
        self._clock = clock
        self._handlers: dict[str, tuple[type[Message], EventHandler]] = {}
        self._subjects: list[str] = []
        for message, handler in handlers.items():
            policy = event_policy(message)
            if policy is None:
                raise ValueError(f"{message.DESCRIPTOR.full_name} is no event")
            self._handlers[message.DESCRIPTOR.full_name] = (message, handler)
            self._subjects.append(f"{policy.subject}.*")
        executor.register(self._queue, self._handle)

    async def serve(self) -> None:
        """Receive until cancelled, whenever the broker is there."""
        await persistently(f"receiving from {self._source}", self._receive)

    async def _receive(self) -> None:
        jetstream = await self._broker.jetstream()
        await self._ensure(jetstream)
        subscription = await jetstream.pull_subscribe_bind(
            durable=self._service, stream=self._source.upper()
        )
        swept = 0.0
        try:
            while True:
                try:
                    messages = await subscription.fetch(PREFETCH, timeout=5)
                except TimeoutError:
                    # Also how a consumer that has gone shows; _ensure makes it again.
                    await self._ensure(jetstream)
                    continue
                await self._database.write(lambda tx, batch=messages: self._take(tx, batch))  # type: ignore[misc]
                for message in messages:
                    await message.ack()
                if self._clock() - swept > _SWEEP:
                    swept = self._clock()
                    await self._database.write(self._sweep)
        finally:
            await subscription.unsubscribe()

    async def _ensure(self, jetstream: JetStreamContext) -> None:
        await ensure_stream(jetstream, self._source)
        await jetstream.add_consumer(
            self._source.upper(),
            ConsumerConfig(
                durable_name=self._service,
                filter_subjects=self._subjects,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=30,
                max_ack_pending=PREFETCH,
                max_deliver=-1,
            ),
        )

    def _take(self, tx: Tx, messages: list[Msg]) -> None:
        for message in messages:
            headers = message.headers or {}
            event_id, kind = headers.get("ce-id", ""), headers.get("ce-type", "")
            if kind not in self._handlers or not event_id:
                log.warning("a message on %s is no event of the contract", message.subject)
                continue
            new = tx.execute(
                "INSERT INTO inbox (consumer, event_id, received_at) VALUES (:consumer, :id, :now)"
                " ON CONFLICT DO NOTHING",
                {"consumer": self._source, "id": event_id, "now": self._clock()},
            )
            if not new:
                continue
            with use_trace({name: headers[name] for name in HEADERS if name in headers}):
                self._executor.enqueue(
                    tx,
                    self._queue,
                    headers.get("ce-subject", ""),
                    _pack(headers, message.data),
                    seq=int(headers.get("ce-sequence", "0")),
                )

    def _sweep(self, tx: Tx) -> None:
        tx.execute(
            "DELETE FROM inbox WHERE received_at < :before",
            {"before": self._clock() - MAX_AGE - 24 * 3600.0},
        )

    async def _handle(self, work: Work) -> Effect | None:
        headers, payload = _unpack(work.payload)
        message, handler = self._handlers[headers["ce-type"]]
        try:
            event = message.FromString(payload)
        except DecodeError as error:
            raise Permanent(f"not a {headers['ce-type']}: {error}") from error
        received = Received(headers["ce-id"], work.key, int(headers.get("ce-sequence", "0")), event)
        return await handler(received)


def _pack(headers: Mapping[str, str], payload: bytes) -> bytes:
    kept = {name: value for name, value in headers.items() if name.startswith("ce-")}
    return json.dumps(kept).encode() + b"\n" + payload


def _unpack(packed: bytes) -> tuple[dict[str, str], bytes]:
    head, _, payload = packed.partition(b"\n")
    return json.loads(head), payload
