"""Events of an invented service, and who publishes and who receives them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from nats.js import JetStreamContext

from accord_runtime.database import Database, Row, Tx
from accord_runtime.events import outbox, position
from accord_runtime.events.audit import Record
from accord_runtime.events.broker import Broker
from accord_runtime.events.inbox import EventHandler, Inbox
from accord_runtime.events.notifier import RECORD, Notifier
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.publisher import Publisher
from accord_runtime.events.record import RecordReader
from accord_runtime.events.versions import AS_WRITTEN, Upcasters
from accord_runtime.settings import Settings
from accord_runtime.work.executor import Executor
from services import topology
from shop.orders.v1.events_pb2 import OrderNoteAdded, OrderShippingStarted
from shop.orders.v1.orders_pb2 import ReadEventsRequest, ReadEventsResponse
from tests.runtime.work.support import at_work

STREAM = "ORDERS"


def note(key: str, text: str = "") -> OrderNoteAdded:
    """An event."""
    return OrderNoteAdded(order_id=key, note=text)


def started(key: str) -> OrderShippingStarted:
    """An event of another kind."""
    return OrderShippingStarted(order_id=key)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Something that runs for as long as the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def broker_at(url: str, service: str, replicas: int = 1) -> Broker:
    """The connection of a service to a broker."""
    home = Path("/nowhere")
    return Broker(
        Settings(service, topology.addresses(), home=home, nats_url=url, nats_replicas=replicas)
    )


def append(
    tx: Tx, message: Message, *, sequence: int, now: float, causation_id: str = ""
) -> outbox.Event:
    """Append an event at a time; nobody is told."""
    outbox = Outbox(lambda: None, lambda key: None, lambda: now)
    return outbox.append(tx, message, sequence=sequence, causation_id=causation_id)


def watched(notifier: Notifier) -> int:
    """Keys that are watched, and watches of the whole record."""
    return len(notifier._watches)


class OrdersProcess:
    """A process of the service "orders": its outbox, and its publisher."""

    def __init__(self, database: Database, url: str, replicas: int = 1) -> None:
        self.database = database
        self.broker = broker_at(url, "orders", replicas)
        self.notifier = Notifier()
        self.publisher = Publisher("orders", database, self.broker, self.notifier)
        self.outbox = Outbox(self.publisher.wake, self.notifier.changed)
        self._sequences: dict[str, int] = {}

    async def append(self, *messages: Message) -> list[str]:
        """Append events, each in a transaction of its own; returns their ids."""
        ids = []
        for message in messages:
            key: str = message.order_id  # type: ignore[attr-defined]
            sequence = self._sequences[key] = self._sequences.get(key, 0) + 1
            event = await self.database.write(
                lambda tx, m=message, s=sequence: self.outbox.append(tx, m, sequence=s)  # type: ignore[misc]
            )
            ids.append(event.event_id)
        return ids

    async def head(self) -> int:
        """The highest position given."""
        return await self.database.read(outbox.head)


@asynccontextmanager
async def publishing(
    database: Database, url: str, replicas: int = 1
) -> AsyncIterator[OrdersProcess]:
    """A process that publishes."""
    process = OrdersProcess(database, url, replicas)
    async with background(process.publisher.serve()):
        yield process
    await process.broker.close()


@asynccontextmanager
async def receiving(
    database: Database,
    url: str,
    handlers: Mapping[type[Message], EventHandler],
    owner: str = "receiver",
    record: Record | None = None,
    upcasters: Upcasters = AS_WRITTEN,
    wanted: Callable[[Any], bool] | None = None,
    at_once: bool = False,
) -> AsyncIterator[Executor]:
    """A process of the service "shipping" that takes events of "orders"."""
    broker = broker_at(url, "shipping")
    executor = Executor(database, owner)
    consumer = Inbox(
        "shipping",
        "orders",
        handlers,
        database=database,
        broker=broker,
        executor=executor,
        record=record,
        upcasters=upcasters,
        wanted=wanted,
        at_once=at_once,
    )
    async with at_work(executor), background(consumer.serve()):
        yield executor
    await broker.close()


def record_of(database: Database) -> Record:
    """Reads the record of "orders", as its ReadEvents does."""

    async def read(position: int, types: Sequence[str]) -> AsyncGenerator[ReadEventsResponse, None]:
        notifier = Notifier()
        async with background(_waking(notifier)):
            asked = ReadEventsRequest(after_position=position, types=types)
            async for each in RecordReader(database, notifier).read(asked, ReadEventsResponse):
                yield each

    return read


async def _waking(notifier: Notifier) -> None:
    """Wake who waits for the record, again and again."""
    while True:
        notifier.changed(RECORD)
        await asyncio.sleep(0.02)


class Copy:
    """A copy of what a receiver keeps in its database."""

    TABLES = ("consumed", "inbox", "work", "results")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: dict[str, list[Row]] = {}

    async def make(self) -> "Copy":
        """Copy what is there now."""
        read = self._database.read
        for table in self.TABLES:
            self._rows[table] = await read(lambda tx, t=table: tx.all(f"SELECT * FROM {t}"))  # type: ignore[misc]
        return self

    async def restore(self) -> None:
        """Put it back; what came later is lost."""

        def write(tx: Tx) -> None:
            for table, rows in self._rows.items():
                tx.execute(f"DELETE FROM {table}")
                for row in rows:
                    tx.insert(table, row)

        await self._database.write(write)


async def stored(
    jetstream: JetStreamContext, stream: str = STREAM, *, begin: int = 0
) -> list[Mapping[str, str]]:
    """The headers of all messages of a stream from a sequence on, in order."""
    info = await jetstream.stream_info(stream)
    found: list[Mapping[str, str]] = []
    for sequence in range(max(begin, info.state.first_seq), info.state.last_seq + 1):
        message = await jetstream.get_msg(stream, sequence)
        found.append(message.headers or {})
    return found


async def length(jetstream: JetStreamContext, stream: str = STREAM) -> int:
    """How many messages a stream has; 0 when it is not there."""
    names = [info.config.name for info in await jetstream.streams_info()]
    return int((await jetstream.stream_info(stream)).state.messages) if stream in names else 0


async def caught_up(database: Database, jetstream: JetStreamContext) -> bool:
    """Whether a receiver has got all of the stream, and by the broker."""
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    noted = await database.read(lambda tx: position.read(tx, "orders"))
    return bool(noted.acknowledged >= last)


def in_order(headers: list[Mapping[str, str]]) -> bool:
    """Whether the first copy of every event comes in the order of its key."""
    last: dict[str, int] = {}
    for each in headers:
        key, sequence = each["ce-subject"], int(each["ce-sequence"])
        if sequence > last.get(key, 0) + 1:
            return False
        last[key] = max(sequence, last.get(key, 0))
    return True
