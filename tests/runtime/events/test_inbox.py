"""Receiving from a real broker that repeats, forgets, dies and loses messages on the way."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from accord_runtime.database import Database, open_database
from accord_runtime.events.broker import stream_of
from accord_runtime.events.inbox import EventHandler, Received
from accord_runtime.work import table
from accord_runtime.work.executor import Permanent
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded, OrderShippingStarted
from tests.runtime.events.support import (
    STREAM,
    length,
    note,
    publishing,
    receiving,
    record_of,
    started,
)
from tests.runtime.work.support import parked_items, result, results
from tests.support.nats import NatsServer
from tests.support.wait import until

KIND = "shop.orders.v1.OrderNoteAdded"


class Notes:
    """A handler that notes what it is given, and fails for some keys."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.seen: list[Received[OrderNoteAdded]] = []

    async def __call__(self, event: Received[OrderNoteAdded]) -> Effect:
        if event.key in self.refused:
            raise Permanent("not this one")
        self.seen.append(event)
        return result(event.event_id)

    @property
    def sequences(self) -> dict[str, list[int]]:
        """Key -> the numbers of its events, in the order of arrival."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.seen:
            found[event.key].append(event.sequence)
        return dict(found)


async def send(
    jetstream: JetStreamContext, key: str, sequence: int, subject: str = "", **other: str
) -> None:
    """Publish an event as a publisher would, or with other headers."""
    given = {
        "ce-id": f"{key}-{sequence}",
        "ce-type": KIND,
        "ce-subject": key,
        "ce-sequence": str(sequence),
        **{name.replace("_", "-"): value for name, value in other.items()},
    }
    payload = note(key, f"number {sequence}").SerializeToString()
    await jetstream.publish(
        subject or f"orders.order.note_added.{key}",
        payload,
        headers={name: value for name, value in given.items() if value},
    )


async def make_stream(jetstream: JetStreamContext) -> None:
    config: StreamConfig = stream_of("orders")
    await jetstream.add_stream(config)


def has(database: Database, count: int) -> Callable[[], Awaitable[bool]]:
    """A condition: this many effects have happened."""

    async def check() -> bool:
        return len(await results(database)) >= count

    return check


async def test_an_event_reaches_its_handler_at_once(
    record: Database, broker_server: NatsServer
) -> None:
    """An event that comes after a quiet while is handled at once, with all its fields."""
    notes = Notes()
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        await make_stream(jetstream)
        await send(jetstream, "k", 1)
        await until(has(record, 1), "the first event")
        for sequence, quiet in ((2, 1.2), (3, 0.3)):
            await asyncio.sleep(quiet)
            begun = time.monotonic()
            await send(jetstream, "k", sequence)
            await until(has(record, sequence), "the event")
            assert time.monotonic() - begun < 3.0  # less than the broker is waited for
    assert [(event.event_id, event.key, event.sequence) for event in notes.seen] == [
        ("k-1", "k", 1),
        ("k-2", "k", 2),
        ("k-3", "k", 3),
    ]
    assert notes.seen[0].payload == note("k", "number 1")


async def test_what_is_not_wanted_is_passed_over(
    record: Database, broker_server: NatsServer
) -> None:
    """It leaves no row in the inbox and holds nothing up; one that cannot be read is parked."""
    notes = Notes()
    unwanted = note("k", "number 1")
    async with (
        broker_server.jetstream() as jetstream,
        receiving(
            record,
            broker_server.url,
            {OrderNoteAdded: notes},
            wanted=lambda event: event != unwanted,
        ),
    ):
        await make_stream(jetstream)
        for sequence in (1, 2):
            await send(jetstream, "k", sequence)
        headers = {"ce-id": "bad", "ce-type": KIND, "ce-subject": "b", "ce-sequence": "1"}
        await jetstream.publish("orders.order.note_added.b", b"\xff", headers=headers)
        await until(has(record, 1), "the wanted event")

        async def is_parked() -> bool:
            return [row.key for row in await record.read(parked_items)] == ["b"]

        await until(is_parked, "the other to be parked")
    assert notes.sequences == {"k": [2]}
    rows = await record.read(lambda tx: tx.all("SELECT event_id FROM inbox ORDER BY event_id"))
    assert [row["event_id"] for row in rows] == ["bad", "k-2"]


async def test_an_event_that_comes_twice_has_one_effect(
    record: Database, broker_server: NatsServer
) -> None:
    """The same event in two messages is handled once; the events around it are not lost."""
    notes = Notes()
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        await make_stream(jetstream)
        for sequence in (1, 2, 1, 2, 3, 1):
            await send(jetstream, "k", sequence)
        await until(has(record, 3), "three events")
        await send(jetstream, "k", 4)
        await until(has(record, 4), "the fourth event")
    assert notes.sequences == {"k": [1, 2, 3, 4]}


async def test_an_event_is_as_old_as_it_says(record: Database, broker_server: NatsServer) -> None:
    """Its work has the event's own time, which is its turn; a time that cannot be read is now."""
    began = time.time()
    times = {"old": "2026-01-02T03:04:05+00:00", "bad": "yesterday", "none": ""}
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: Notes(*times)}),
    ):
        await make_stream(jetstream)
        for key, at in times.items():
            await send(jetstream, key, 1, ce_time=at)

        async def parked() -> bool:
            return len(await record.read(parked_items)) == len(times)

        await until(parked, "the events to be parked")
    found = await record.read(lambda tx: tx.all("SELECT key, flow_at FROM work"))
    flows = {row["key"]: row["flow_at"] for row in found}
    assert flows.pop("old") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert min(flows.values()) >= began


async def test_a_handler_that_fails_holds_up_its_key_only(
    record: Database, broker_server: NatsServer
) -> None:
    """A refused event is parked, later ones of its key wait behind it, other keys go on."""
    notes = Notes("bad")
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}) as executor,
    ):
        await make_stream(jetstream)
        for sequence in (1, 2, 3):
            for key in ("bad", "good"):
                await send(jetstream, key, sequence)
        await until(has(record, 3), "the good events")

        async def parked() -> bool:
            return bool(await record.read(parked_items))

        await until(parked, "the bad event to be parked")
        assert notes.sequences == {"good": [1, 2, 3]}

        [first] = await record.read(parked_items)
        assert (first.queue, first.key) == ("inbox:orders", "bad")
        notes.refused.clear()
        await record.write(lambda tx: table.unpark(tx, first.id, time.time()))
        executor.wake()
        await until(has(record, 6), "the bad events")
    assert notes.sequences == {"good": [1, 2, 3], "bad": [1, 2, 3]}


async def test_what_is_no_event_of_the_contract_is_parked(
    record: Database, broker_server: NatsServer
) -> None:
    """Other kinds, absurd headers and broken payloads are parked, each with its reason.

    They harm no event after them.
    """
    notes = Notes()
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        await make_stream(jetstream)
        await send(jetstream, "k", 1, ce_type="shop.orders.v1.OrderPaid")
        await send(jetstream, "k", 2, subject="orders.order.paid.k")
        await send(jetstream, "k", 3, ce_id="")
        await send(jetstream, "k", 4, ce_sequence="four")
        await send(jetstream, "k", 5, ce_sequence="9" * 40)
        await jetstream.publish("orders.order.note_added.k", b"no headers")
        broken = {"ce-id": "x", "ce-type": KIND, "ce-subject": "x", "ce-sequence": "1"}
        await jetstream.publish("orders.order.note_added.x", b"\xff\xff", headers=broken)
        await send(jetstream, "y", 1, subject="orders.order.note_added.k")
        await send(jetstream, "z", 1, ce_dataversion="2")
        await send(jetstream, "w", 1, ce_dataversion="-1")
        await send(jetstream, "k", 6)
        await until(has(record, 1), "the good event")

        async def parked() -> bool:
            return len(await record.read(parked_items)) == 9

        await until(parked, "all that is no event to be parked")
        reasons = {
            found.key.partition(" of ")[0]: found.last_error.partition(" with type")[0]
            for found in await record.read(parked_items)
        }
    assert notes.sequences == {"k": [6]}
    at = "orders.order.note_added.k#"
    wrong = f"a {KIND} on orders.order.note_added.k, and its subject is orders.order.note_added.y"
    assert {key: reason.removeprefix("Permanent: ") for key, reason in reasons.items()} == {
        f"{at}1": "a shop.orders.v1.OrderPaid, which this version of shipping does not handle",
        f"{at}3": "no event: it has no ce-id",
        f"{at}4": "no event: its ce-sequence is 'four'",
        f"{at}5": f"no event: its ce-sequence is {'9' * 20!r}",
        f"{at}6": "no event: it has no ce-id",
        f"{at}8": wrong,
        "orders.order.note_added.w#10": "no event: its ce-dataversion is '-1'",
        "x": f"not a {KIND}: Error parsing message",
        "z": f"{KIND} of version 2 is newer than what is known here, version 1:"
        " upgrade, then try again",
    }


async def test_a_killed_broker_is_received_from_again(
    record: Database, broker_server: NatsServer
) -> None:
    """With the broker killed twice while events flow, each has one effect, in the order of keys."""
    notes = Notes()
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        for _ in range(2):
            await publisher.append(*(note(f"k{n % 5}") for n in range(100)))
            await broker_server.restart()
        await publisher.append(*(note(f"k{n % 5}") for n in range(100)))
        await until(has(record, 300), "all events", seconds=30)
    assert notes.sequences == {f"k{key}": list(range(1, 61)) for key in range(5)}


async def test_a_stream_that_lost_its_tail_loses_no_event(
    record: Database, broker_server: NatsServer
) -> None:
    """Events that the broker forgot before they were received are handled in the end, once."""
    notes = Notes()
    async with publishing(record, broker_server.url) as publisher:
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await publisher.append(*(note("k") for _ in range(5)))
            await until(has(record, 5), "the first events")
        broker_server.stop()
        broker_server.save()
        await broker_server.start()
        await publisher.append(*(note("k") for _ in range(5)))
        async with broker_server.jetstream() as jetstream:
            await until(lambda: _has_length(jetstream, 10), "the events on the broker")
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await until(has(record, 10), "the next events")
            await publisher.append(*(note("k") for _ in range(5)))
            await until(has(record, 15), "the last events")
            broker_server.kill()
            broker_server.restore()
            await broker_server.start()
            await publisher.append(*(note("k") for _ in range(9)))
            await until(has(record, 24), "the events after the loss", seconds=30)
    assert notes.sequences == {"k": list(range(1, 25))}


@pytest.mark.parametrize("read", [False, True], ids=["no record", "a record"])
async def test_a_stream_that_lost_its_tail_and_has_grown_since_loses_no_event(
    record: Database, broker_server: NatsServer, read: bool
) -> None:
    """That something else is where the last event was tells that the stream is not as it was."""
    notes = Notes()
    handlers: dict[type[Message], EventHandler] = {OrderNoteAdded: notes}
    source = record_of(record) if read else None
    async with publishing(record, broker_server.url) as publisher:
        await publisher.append(note("k"))
        async with broker_server.jetstream() as jetstream:
            await until(lambda: _has_length(jetstream, 1), "the event on the broker")
        broker_server.stop()
        broker_server.save()
        await broker_server.start()
        async with receiving(record, broker_server.url, handlers, record=source):
            await publisher.append(*(note("k") for _ in range(5)))
            await until(has(record, 6), "the first events")
        broker_server.kill()
        broker_server.restore()
        await broker_server.start()
        await publisher.append(*(note("k") for _ in range(30)))
        async with broker_server.jetstream() as jetstream:
            await until(lambda: _has_length(jetstream, 36), "all events on the broker")
        async with receiving(record, broker_server.url, handlers, record=source):
            await until(has(record, 36), "the events after the loss")
    assert notes.sequences == {"k": list(range(1, 37))}


async def test_events_that_follow_each_other_cost_no_look_at_the_stream(
    record: Database, broker_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may have been lost is asked when there is a gap, and not at each batch."""
    looks, usual = list[str](), JetStreamContext.stream_info

    async def looked(self: JetStreamContext, name: str, *given: Any, **more: Any) -> Any:
        looks.append(name)
        return await usual(self, name, *given, **more)

    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: Notes()}),
    ):
        await make_stream(jetstream)
        await send(jetstream, "k", 1)
        await until(has(record, 1), "the first event")
        monkeypatch.setattr(JetStreamContext, "stream_info", looked)
        for sequence in range(2, 6):
            await send(jetstream, "k", sequence)
            await until(has(record, sequence), "the next event")
        assert looks == []
        await jetstream.publish("orders.another.k", b"")
        await send(jetstream, "k", 6)
        await until(has(record, 6), "the event behind the gap")
    assert looks == [STREAM]


async def test_a_deleted_consumer_is_made_again(
    record: Database, broker_server: NatsServer
) -> None:
    """When somebody deletes the durable consumer, receiving goes on; nothing is handled twice."""
    notes = Notes()
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        await make_stream(jetstream)
        await send(jetstream, "k", 1)
        await until(has(record, 1), "the first event")
        await jetstream.delete_consumer(STREAM, "shipping")
        await send(jetstream, "k", 2)
        await until(has(record, 2), "the event after that")
        await jetstream.delete_stream(STREAM)
        await make_stream(jetstream)
        await send(jetstream, "k", 3)
        await until(has(record, 3), "the event after the stream was deleted", seconds=30)
    assert notes.sequences == {"k": [1, 2, 3]}


async def test_a_restarted_service_goes_on_where_it_was(
    record: Database, broker_server: NatsServer
) -> None:
    """Events of the time in which a service was down are handled when it is back, and no others."""
    first, second = Notes(), Notes()
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        async with receiving(record, broker_server.url, {OrderNoteAdded: first}):
            await send(jetstream, "k", 1)
            await until(has(record, 1), "the first event")
        await send(jetstream, "k", 2)
        await send(jetstream, "k", 3)
        async with receiving(record, broker_server.url, {OrderNoteAdded: second}):
            await until(has(record, 3), "the other events")
    assert (first.sequences, second.sequences) == ({"k": [1]}, {"k": [2, 3]})


async def test_what_a_dead_process_had_fetched_comes_first(
    record: Database, broker_server: NatsServer
) -> None:
    """Messages that were fetched but not kept are asked for again at once, before later ones."""
    notes = Notes()
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await send(jetstream, "k", 1)
            await until(has(record, 1), "the first event")
        await until(lambda: _is_left_alone(jetstream), "the broker to see that nobody asks")
        for sequence in (2, 3):
            await send(jetstream, "k", sequence)
        await _steal(jetstream, 2)
        for sequence in (4, 5):
            await send(jetstream, "k", sequence)
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await until(has(record, 5), "all events", seconds=10)
    assert notes.sequences == {"k": [1, 2, 3, 4, 5]}


async def test_a_message_that_is_lost_on_its_way_is_not_overtaken(
    record: Database, broker_server: NatsServer
) -> None:
    """A gap in what the broker has sent is noticed, and what is missing comes before the rest."""
    notes = Notes()
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: notes}),
    ):
        await make_stream(jetstream)
        await send(jetstream, "k", 1)
        await until(has(record, 1), "the first event")
        # Who else pulls is served in turn, so that one of the two messages gets lost.
        thief = asyncio.create_task(_steal(jetstream, 1))
        await asyncio.sleep(0.1)
        for sequence in range(2, 6):
            await send(jetstream, "k", sequence)
        await thief
        await send(jetstream, "k", 6)
        await until(has(record, 6), "all events", seconds=10)
    assert notes.sequences == {"k": [1, 2, 3, 4, 5, 6]}


async def test_a_handler_for_another_event_may_be_added(
    record: Database, broker_server: NatsServer
) -> None:
    """The next version of a service, which takes more kinds of events, gets them from then on."""
    notes, more = Notes(), Notes()
    async with publishing(record, broker_server.url) as publisher:
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}):
            await publisher.append(note("k"), started("k"), note("k"))
            await until(has(record, 2), "the notes")
        both: dict[type[Message], EventHandler] = {
            OrderNoteAdded: notes,
            OrderShippingStarted: more,
        }
        async with receiving(record, broker_server.url, both):
            await publisher.append(started("k"), note("k"))
            await until(has(record, 4), "both kinds")
    assert notes.sequences == {"k": [1, 3, 5]}
    assert more.sequences == {"k": [4]}


async def test_replicas_keep_the_order_of_keys(
    record: Database, database_url: str, service: str, broker_server: NatsServer
) -> None:
    """With two receivers on one database, each event has one effect, in the order of its key."""
    notes = Notes()
    other = await open_database(database_url, service) if "postgres" in database_url else record
    handlers: dict[type[Message], EventHandler] = {OrderNoteAdded: notes}
    async with (
        publishing(record, broker_server.url) as publisher,
        receiving(record, broker_server.url, handlers, "one"),
    ):
        async with receiving(other, broker_server.url, handlers, "two"):
            await publisher.append(*(note(f"k{n % 5}") for n in range(150)))
            await until(has(record, 150), "all events")
        await publisher.append(*(note(f"k{n % 5}") for n in range(50)))
        await until(has(record, 200), "all events")
    assert notes.sequences == {f"k{key}": list(range(1, 41)) for key in range(5)}
    if other is not record:
        await other.close()


async def _has_length(jetstream: JetStreamContext, count: int) -> bool:
    return await length(jetstream) >= count


async def _is_left_alone(jetstream: JetStreamContext) -> bool:
    """Whether no request of a consumer is open, which would be served before any later one."""
    return not (await jetstream.consumer_info(STREAM, "shipping")).num_waiting


async def _steal(jetstream: JetStreamContext, count: int) -> None:
    """Take messages of the durable consumer, as a process does that dies before it keeps them."""
    subscription = await jetstream.pull_subscribe_bind(durable="shipping", stream=STREAM)
    taken = 0
    while taken < count:
        taken += len(await subscription.fetch(count - taken, timeout=10))
    await subscription.unsubscribe()
