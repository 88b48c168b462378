"""The numbers that the pages promise of events, as they are written there."""

from functools import partial

from nats.js.api import AckPolicy, RetentionPolicy, StorageType
from nats.js.errors import NotFoundError

from accord_runtime.database import Database, Tx
from accord_runtime.events import outbox
from accord_runtime.events.inbox import Received
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded
from tests.runtime.events.support import (
    STREAM,
    OrdersProcess,
    broker_at,
    length,
    note,
    publishing,
    receiving,
    stored,
)
from tests.runtime.work.support import result, results
from tests.support.nats import NatsServer
from tests.support.wait import until

DAY = 24 * 3600.0


async def take(event: Received[OrderNoteAdded]) -> Effect:
    """A handler of events."""
    return result(event.event_id)


def age(table: str, column: str, event: str, seconds: float, tx: Tx) -> None:
    """Make what is known of an event older."""
    tx.execute(
        f"UPDATE {table} SET {column} = {column} - :seconds WHERE event_id = :event",
        {"event": event, "seconds": seconds},
    )


async def test_thirty_days_on_the_broker(broker_server: NatsServer) -> None:
    """A stream is a file, kept for 30 days, that knows an id again for 10 minutes."""
    broker = broker_at(broker_server.url, "orders")
    config = (await broker.ensure_stream(await broker.jetstream(), "orders")).config
    await broker.close()
    assert (config.max_age, config.duplicate_window) == (30 * DAY, 600.0)
    assert (config.storage, config.retention) == (StorageType.FILE, RetentionPolicy.LIMITS)
    assert config.subjects == ["orders.>"]


async def test_a_hundred_at_once_from_the_broker(
    record: Database, broker_server: NatsServer
) -> None:
    """No more than 100 messages are out that were not acknowledged; each comes until it was."""
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: take}),
    ):

        async def made() -> bool:
            try:
                await jetstream.consumer_info(STREAM, "shipping")
            except NotFoundError:
                return False
            return True

        await until(made, "the consumer")
        config = (await jetstream.consumer_info(STREAM, "shipping")).config
    assert (config.max_ack_pending, config.max_deliver) == (100, -1)
    assert (config.ack_policy, config.ack_wait) == (AckPolicy.ALL, 30)


async def test_a_new_stream_gets_the_events_of_thirty_days(
    record: Database, broker_server: NatsServer
) -> None:
    """An event that is older stays in the record; one that is not quite is published."""
    process = OrdersProcess(record, broker_server.url)
    old, young = await process.append(note("a"), note("a"))
    await record.write(partial(age, "events", "occurred_at", old, 30 * DAY + 60))
    await record.write(partial(age, "events", "occurred_at", young, 30 * DAY - 600))
    await record.write(outbox.number)
    async with (
        broker_server.jetstream() as jetstream,
        publishing(record, broker_server.url) as other,
    ):
        (new,) = await other.append(note("b"))

        async def two() -> bool:
            return await length(jetstream) >= 2

        await until(two, "two events")
        assert [each["ce-id"] for each in await stored(jetstream)] == [young, new]


async def test_an_id_is_known_for_longer_than_the_broker_keeps_the_event(
    record: Database, broker_server: NatsServer
) -> None:
    """The inbox knows what it has received for 30 days and one more, and then forgets it."""

    async def effects(count: int) -> bool:
        return len(await results(record)) >= count

    def known(tx: Tx) -> list[str]:
        return sorted(row["event_id"] for row in tx.all("SELECT event_id FROM inbox"))

    async with publishing(record, broker_server.url) as process:
        first, second = await process.append(note("k"), note("k"))
        async with receiving(record, broker_server.url, {OrderNoteAdded: take}):
            await until(partial(effects, 2), "two events")
        assert await record.read(known) == [first, second]
        await record.write(partial(age, "inbox", "received_at", first, 30 * DAY))
        await record.write(partial(age, "inbox", "received_at", second, 31 * DAY + 60))
        async with receiving(record, broker_server.url, {OrderNoteAdded: take}):
            (third,) = await process.append(note("k"))

            async def swept() -> bool:
                return await record.read(known) == [first, third]

            await until(swept, "the inbox to be swept")
