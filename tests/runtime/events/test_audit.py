"""What the broker loses, and what a restored database has forgotten, is handled all the same."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from google.protobuf.message import Message
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from accord_runtime.database import Database, Tx, open_database
from accord_runtime.events import audit, inbox, notifier, outbox, position, pull
from accord_runtime.events import publisher as publisher_module
from accord_runtime.events.audit import Record, Recorded
from accord_runtime.events.broker import MAX_AGE, stream_of
from accord_runtime.events.inbox import EventHandler
from shop.orders.v1.events_pb2 import OrderNoteAdded
from tests.runtime.events.support import (
    STREAM,
    Copy,
    OrdersProcess,
    background,
    caught_up,
    length,
    note,
    publishing,
    receiving,
    record_of,
    started,
    stored,
)
from tests.runtime.events.test_inbox import Notes, has
from tests.runtime.work.support import results
from tests.support.nats import NatsServer
from tests.support.wait import until

KEYS = 4


@pytest.fixture
def frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits come all the time, also while nothing comes, for what is a tenth of a second old."""
    monkeypatch.setattr(pull, "HEARTBEAT", 0.2)
    monkeypatch.setattr(inbox, "AUDIT", 0.1)
    monkeypatch.setattr(inbox, "AWAY", 0.1)
    monkeypatch.setattr(inbox, "GRACE", 0.1)
    monkeypatch.setattr(audit, "RETRY", 0.1)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers compare the stream ten times a second."""
    monkeypatch.setattr(publisher_module, "CHECK", 0.1)


@pytest.fixture(params=["record", "no record"])
def reading(
    request: pytest.FixtureRequest, record: Database, monkeypatch: pytest.MonkeyPatch
) -> Record | None:
    """Receivers read the record, or else wait until the publisher has noticed."""
    if request.param == "record":
        return record_of(record)
    monkeypatch.setattr(publisher_module, "CHECK", 0.1)
    return None


def in_turn(count: int) -> list[OrderNoteAdded]:
    """Events of several keys."""
    return [note(f"k{number % KEYS}") for number in range(count)]


def expected(count: int) -> dict[str, list[int]]:
    """What a handler sees of them: every event once, in the order of its key."""
    seen = {f"k{key}": list(range(1, len(range(key, count, KEYS)) + 1)) for key in range(KEYS)}
    return {key: numbers for key, numbers in seen.items() if numbers}


async def on_broker(server: NatsServer, count: int) -> None:
    async with server.jetstream() as jetstream:
        await until(lambda: _holds(jetstream, count), f"{count} messages on the broker")


async def _holds(jetstream: JetStreamContext, count: int) -> bool:
    return await length(jetstream) >= count


@asynccontextmanager
async def consumed(
    record: Database, server: NatsServer, count: int
) -> AsyncIterator[tuple[OrdersProcess, Notes]]:
    """A publisher whose first events were handled by a receiver that has ended."""
    notes = Notes()
    async with publishing(record, server.url) as publisher:
        await publisher.append(*in_turn(count))
        async with receiving(record, server.url, {OrderNoteAdded: notes}):
            await until(has(record, count), "the first events")
        yield publisher, notes


def in_order(notes: Notes, reading: Record | None) -> dict[str, list[int]]:
    """What was seen; sorted where what was lost may come behind what was published later."""
    if reading is not None:
        return notes.sequences
    return {key: sorted(seen) for key, seen in notes.sequences.items()}


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What the audits have said."""
    return [
        found.getMessage()
        for found in caplog.records
        if found.name == audit.__name__ and found.levelno == level
    ]


async def test_a_purged_stream_loses_no_event(
    record: Database, broker_server: NatsServer, reading: Record | None
) -> None:
    """Of 20 events that were purged before they were received, each is handled once, in order."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        await publisher.append(*in_turn(20))
        await on_broker(broker_server, 28)
        async with broker_server.jetstream() as jetstream:
            await jetstream.purge_stream(STREAM)
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading):
            await until(has(record, 28), "the purged events")
            await publisher.append(*in_turn(4))
            await until(has(record, 32), "the events after them")
    assert notes.sequences == expected(32)


async def test_what_was_purged_comes_before_what_is_later(
    record: Database, broker_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that follow purged ones of their keys on the broker wait for them; it is said."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        await publisher.append(*in_turn(20))
        await on_broker(broker_server, 28)
        async with broker_server.jetstream() as jetstream:
            await jetstream.purge_stream(STREAM)
            await publisher.append(*in_turn(8))
            await until(lambda: _holds(jetstream, 8), "the later events")
        async with receiving(
            record, broker_server.url, {OrderNoteAdded: notes}, record=record_of(record)
        ):
            await until(has(record, 36), "all events")
    assert notes.sequences == expected(36)
    [text] = said(caplog, logging.WARNING)
    assert text.endswith("of orders were taken from its record: the stream has lost messages")


async def test_a_purge_under_way_loses_no_order(
    record: Database, database_url: str, service: str, broker_server: NatsServer
) -> None:
    """Receivers at work, two on one database, notice a purge before they take what comes after."""
    notes = Notes()
    other = await open_database(database_url, service) if "postgres" in database_url else record
    handlers: dict[type[Message], EventHandler] = {OrderNoteAdded: notes}
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, handlers, "one", record_of(record)),
        receiving(other, broker_server.url, handlers, "two", record_of(record)),
        broker_server.jetstream() as jetstream,
    ):
        for number in range(1, 6):
            await publisher.append(*in_turn(40))
            await until(lambda: _holds(jetstream, 1), "a stream")
            await jetstream.purge_stream(STREAM)
            await publisher.append(*in_turn(40))
            await until(has(record, 80 * number), "all events")
    assert notes.sequences == expected(400)
    if other is not record:
        await other.close()


async def test_a_hole_in_a_stream_loses_no_event(
    record: Database, broker_server: NatsServer, reading: Record | None
) -> None:
    """A message that was deleted before it was received is handled once."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        await publisher.append(*in_turn(20))
        await on_broker(broker_server, 28)
        async with broker_server.jetstream() as jetstream:
            await jetstream.delete_msg(STREAM, 15)
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading):
            await until(has(record, 28), "all events")
    assert in_order(notes, reading) == expected(28)


async def test_a_stream_made_anew_loses_no_event(
    record: Database, broker_server: NatsServer, reading: Record | None
) -> None:
    """Events that went with a deleted stream are handled once, and those before them not again."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        await publisher.append(*in_turn(20))
        await on_broker(broker_server, 28)
        async with broker_server.jetstream() as jetstream:
            await jetstream.delete_stream(STREAM)
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading):
            await publisher.append(*in_turn(4))
            await until(has(record, 32), "all events")
    assert in_order(notes, reading) == expected(32)


async def test_a_broker_restored_from_yesterday_loses_no_event(
    record: Database, broker_server: NatsServer, reading: Record | None
) -> None:
    """With the store of before, events of today that were not received are handled, once."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        broker_server.stop()
        broker_server.save()
        await broker_server.start()
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await publisher.append(*in_turn(12))
            await until(has(record, 20), "the events of today")
        await publisher.append(*in_turn(20))
        await on_broker(broker_server, 40)
        broker_server.kill()
        broker_server.restore()
        await broker_server.start()
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading):
            await publisher.append(*in_turn(4))
            await until(has(record, 44), "all events", seconds=40)
    assert in_order(notes, reading) == expected(44)


@pytest.mark.parametrize("emptied", [False, True], ids=["on the broker", "purged"])
async def test_a_restored_receiver_handles_what_it_has_forgotten(
    record: Database, broker_server: NatsServer, emptied: bool
) -> None:
    """From a copy of before, every event has its one effect; from the record if need be."""
    async with consumed(record, broker_server, 8) as (publisher, notes):
        copy = await Copy(record).make()
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await publisher.append(*in_turn(20))
            await until(has(record, 28), "the events after the copy")
    await copy.restore()
    if emptied:
        async with broker_server.jetstream() as jetstream:
            await jetstream.purge_stream(STREAM)
    again = Notes()
    async with receiving(
        record,
        broker_server.url,
        {OrderNoteAdded: again},
        record=record_of(record) if emptied else None,
    ):
        await until(has(record, 28), "the forgotten events")
        assert len(set(await results(record))) == 28
        assert len(await results(record)) == 28
    forgotten = {key: numbers[2:] for key, numbers in expected(28).items()}
    assert again.sequences == forgotten


async def test_events_are_handled_while_the_broker_is_away(
    record: Database,
    broker_server: NatsServer,
    frequent: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They come from the record, in order, and not again when the broker is back."""
    caplog.set_level(logging.INFO)
    async with consumed(record, broker_server, 8) as (publisher, notes):
        broker_server.kill()
        async with receiving(
            record, broker_server.url, {OrderNoteAdded: notes}, record=record_of(record)
        ):
            await publisher.append(*in_turn(12))
            await until(has(record, 20), "the events of the outage")
            assert "the broker is away" in said(caplog, logging.INFO)[0]
            await broker_server.start()
            await on_broker(broker_server, 20)
            await publisher.append(*in_turn(4))
            await until(has(record, 24), "the events after it")
            await on_broker(broker_server, 24)
            async with broker_server.jetstream() as jetstream:
                await until(lambda: caught_up(record, jetstream), "the broker's events")
    assert notes.sequences == expected(24)


async def test_a_broker_that_goes_is_read_around(
    record: Database, broker_server: NatsServer
) -> None:
    """A receiver that has lost the connection has later events within seconds."""
    notes = Notes()
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=record_of(record)),
    ):
        await publisher.append(*in_turn(4))
        await until(has(record, 4), "the first events")
        broker_server.kill()
        await publisher.append(*in_turn(4))
        await until(has(record, 8), "the events of the outage", seconds=15)
    assert notes.sequences == expected(8)


async def test_nothing_is_said_when_nothing_is_missing(
    record: Database,
    broker_server: NatsServer,
    frequent: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Audits move the position up to the last event that is handled, and are silent."""
    monkeypatch.setattr(inbox, "GRACE", 3.0)
    notes = Notes()
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=record_of(record)),
    ):
        for _ in range(5):
            await publisher.append(*in_turn(100), started("k0"))
        await until(has(record, 500), "all events")
        await until(lambda: _audited(record, 504), "the audit")
    assert said(caplog, logging.WARNING) == []


async def _audited(database: Database, at: int) -> bool:
    found = await database.read(lambda tx: position.read(tx, "orders"))
    return found.position == at


async def test_what_the_inbox_has_forgotten_is_not_handled_again(
    record: Database, broker_server: NatsServer, frequent: None
) -> None:
    """The database of a version without a position: old events of the record are taken as handled.

    Those of the last 30 days are in the inbox if they were handled, and are handled if not.
    """
    async with consumed(record, broker_server, 12) as (publisher, notes):
        [lost] = await publisher.append(note("lost"))
        await on_broker(broker_server, 13)
    old = [event.event_id for event in await record.read(lambda tx: outbox.of_key(tx, "k0"))]

    def age(tx: Tx) -> None:
        tx.execute("DELETE FROM consumed")
        for event_id in old:
            of = {"id": event_id, "age": MAX_AGE + 2 * 24 * 3600.0}
            tx.execute(
                "UPDATE events SET occurred_at = occurred_at - :age WHERE event_id = :id", of
            )
            tx.execute("DELETE FROM inbox WHERE event_id = :id", of)

    await record.write(age)
    async with broker_server.jetstream() as jetstream:
        await jetstream.purge_stream(STREAM)
    async with receiving(
        record, broker_server.url, {OrderNoteAdded: notes}, record=record_of(record)
    ):
        await until(has(record, 13), "the event that was lost")
        await until(lambda: _audited(record, 13), "the audit")
    assert notes.sequences == {**expected(12), "lost": [1]}
    assert lost in await results(record)


@pytest.mark.parametrize("kind", [note, started])
@pytest.mark.parametrize("later", [0, 1, 2, 40], ids=["shorter", "one less", "as long", "longer"])
async def test_a_record_that_went_back_is_said_once(
    record: Database,
    broker_server: NatsServer,
    frequent: None,
    caplog: pytest.LogCaptureFixture,
    later: int,
    kind: Callable[[str], Message],
) -> None:
    """A source's restored database: an operator is told; events from then on are handled once."""
    reading = record_of(record)
    notes = Notes()
    async with (
        receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading),
        publishing(record, broker_server.url) as publisher,
    ):
        await publisher.append(*in_turn(20))
        await until(lambda: _audited(record, 20), "the audit")

    def go_back(tx: Tx) -> None:
        tx.execute("DELETE FROM events WHERE position > 18")
        tx.execute("UPDATE relay SET position = 18, acknowledged = 18")
        tx.execute("UPDATE relay_marks SET position = 18")

    await record.write(go_back)
    restored = OrdersProcess(record, broker_server.url)
    await restored.append(*(kind("new") for _ in range(later)))
    handled = later if kind is note else 0
    async with (
        background(restored.publisher.serve()),
        receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading),
    ):
        await until(lambda: said(caplog, logging.CRITICAL), "the alarm")
        await restored.append(*(note("newer") for _ in range(9)))
        await until(has(record, 20 + handled + 9), "the new events")
        await until(lambda: _audited(record, 18 + later + 9), "the audit")
    await restored.broker.close()
    assert len(said(caplog, logging.CRITICAL)) == 1
    news = {"new": list(range(1, handled + 1))} if handled else {}
    assert notes.sequences == {**expected(20), **news, "newer": list(range(1, 10))}


async def test_an_unreadable_record_is_waited_for(
    record: Database, broker_server: NatsServer, frequent: None
) -> None:
    """While the record of what was purged cannot be read, later events do not overtake."""
    there = False

    async def reading(after: int, types: object) -> AsyncIterator[audit.Recorded]:
        if not there:
            raise ConnectionError
        async for each in record_of(record)(after, ()):
            yield each

    async with consumed(record, broker_server, 8) as (publisher, notes):
        await publisher.append(*in_turn(20), started("k0"))
        await on_broker(broker_server, 29)
        async with broker_server.jetstream() as jetstream:
            await jetstream.purge_stream(STREAM)
        await publisher.append(*in_turn(4))
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=reading):
            begun = time.monotonic()
            await until(lambda: time.monotonic() - begun > 0.5, "several audits to fail")
            assert len(await results(record)) == 8
            there = True
            await until(has(record, 32), "all events")
    assert all(seen == sorted(seen) for seen in notes.sequences.values())


async def arrivals(server: NatsServer, begin: int = 0) -> list[str]:
    """The ids of the events in a stream, from a sequence on."""
    async with server.jetstream() as jetstream:
        return [each["ce-id"] for each in await stored(jetstream, begin=begin)]


async def test_a_purge_is_repaired_once(
    record: Database, broker_server: NatsServer, watchful: None
) -> None:
    """Within the duplicate window, twice in a row; afterwards nothing is published again."""
    async with publishing(record, broker_server.url) as publisher:
        ids = await publisher.append(*in_turn(12))
        await on_broker(broker_server, 12)
        for _ in range(2):
            async with broker_server.jetstream() as jetstream:
                await jetstream.purge_stream(STREAM)
            await on_broker(broker_server, 12)
        ids += await publisher.append(*in_turn(4))
        await on_broker(broker_server, 16)
        await _compared(publisher)
    assert await arrivals(broker_server) == ids


async def test_a_hole_is_repaired_once(
    record: Database, broker_server: NatsServer, watchful: None
) -> None:
    """What comes after a deleted message is published again, by the next publisher no more."""
    async with publishing(record, broker_server.url) as publisher:

        def many(tx: Tx) -> None:
            for number in range(1050):
                publisher.outbox.append(tx, note(f"k{number}"), sequence=1)

        await record.write(many)
        await on_broker(broker_server, 1050)
        await until(lambda: _position(record, 1050), "the note of it")
        async with broker_server.jetstream() as jetstream:
            lost = (await jetstream.get_msg(STREAM, 1030)).headers or {}
            await jetstream.delete_msg(STREAM, 1030)
            await until(lambda: _holds(jetstream, 1051), "the repair")
        await until(lambda: _position(record, 1050), "the end of it")
    # Where publishing stood is noted once in a thousand messages.
    count = await _count(broker_server)
    assert 1049 + 51 <= count <= 1049 + 51 + publisher_module.BATCH
    async with publishing(record, broker_server.url) as publisher:
        await _compared(publisher)
        assert await _count(broker_server) == count
    again = await arrivals(broker_server, 1051)
    assert lost["ce-id"] in again


async def _position(database: Database, at: int) -> bool:
    relay = "SELECT position FROM relay"
    return bool(await database.read(lambda tx: tx.value(relay)) == at)


async def _count(server: NatsServer) -> int:
    async with server.jetstream() as jetstream:
        return await length(jetstream)


async def _compared(process: OrdersProcess) -> None:
    """Until the publisher has compared twice more."""
    seen = 0
    compare = process.publisher._compare

    async def counting(*arguments: object) -> publisher_module.Mark:
        nonlocal seen
        seen += 1
        return await compare(*arguments)  # type: ignore[arg-type]

    process.publisher._compare = counting  # type: ignore[method-assign,assignment]
    await until(lambda: seen >= 2, "two looks at the stream")


async def _change(server: NatsServer, **changes: object) -> None:
    async with server.jetstream() as jetstream:
        config: StreamConfig = stream_of("orders").evolve(**changes)
        await jetstream.update_stream(config)


@pytest.mark.parametrize(
    "limit",
    [{"max_msgs": 5}, {"max_bytes": 3000}, {"max_age": 1.0}],
    ids=lambda one: next(iter(one)),
)
async def test_a_stream_that_discards_by_design_is_left_alone(
    record: Database,
    broker_server: NatsServer,
    watchful: None,
    caplog: pytest.LogCaptureFixture,
    limit: dict[str, float],
) -> None:
    """Limits that an operator has set, and age, are no loss: nothing is published again."""
    async with publishing(record, broker_server.url) as publisher:
        await publisher.append(*in_turn(12))
        await on_broker(broker_server, 12)
        await _change(broker_server, duplicate_window=1.0, **limit)
        async with broker_server.jetstream() as jetstream:
            await until(lambda: _fewer(jetstream, 12), "the broker to discard")
        await _compared(publisher)
        async with broker_server.jetstream() as jetstream:
            assert (await jetstream.stream_info(STREAM)).state.last_seq == 12
    assert not [found for found in caplog.records if found.name == publisher_module.__name__]


async def _fewer(jetstream: JetStreamContext, count: int) -> bool:
    return await length(jetstream) < count


async def test_audits_are_passed_over_while_nothing_comes(
    record: Database,
    broker_server: NatsServer,
    frequent: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once all that came is compared, the record is left alone for a while, or until more comes."""
    happened: list[str] = []
    read, usual = record_of(record), notifier.wait

    away = False

    def reading(position: int, types: Sequence[str]) -> AsyncIterable[Recorded]:
        happened.append("read")
        if away:
            raise OSError("the source is away")
        return read(position, types)

    async def waiting(event: asyncio.Event, seconds: float) -> None:
        await usual(event, seconds)
        happened.append("due")

    def passed_over() -> bool:
        return happened[-9:] == ["due"] * 9

    async def read_again() -> None:
        before = happened.count("read")
        await until(lambda: happened.count("read") > before, "an audit")

    monkeypatch.setattr(inbox, "RETRY", 0.1)
    monkeypatch.setattr(inbox, "wait", waiting)
    monkeypatch.setattr(inbox, "PASSED", 1_000_000)
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, {OrderNoteAdded: Notes()}, record=reading),
    ):
        await publisher.append(note("a"))
        await until(has(record, 1), "the first event")
        await until(passed_over, "audits that are passed over")
        away = True
        monkeypatch.setattr(inbox, "PASSED", 4)
        await read_again()  # though nothing has come
        monkeypatch.setattr(inbox, "PASSED", 1_000_000)
        await read_again()  # one that has failed is due again
        away = False
        await until(passed_over, "audits that are passed over")
        await publisher.append(note("b"))
        await read_again()
