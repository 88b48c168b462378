"""The publisher against a real broker that goes away, dies and forgets."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from nats.js import JetStreamContext

from accord_runtime.database import Database, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import outbox
from accord_runtime.events import publisher as module
from accord_runtime.events.broker import MAX_AGE
from accord_runtime.events.outbox import Event
from accord_runtime.events.publisher import Mark, recover, without_repeated_keys
from accord_runtime.process import MIGRATIONS
from tests.runtime.events.support import (
    STREAM,
    OrdersProcess,
    in_order,
    length,
    note,
    publishing,
    started,
    stored,
)
from tests.support.nats import NatsServer
from tests.support.wait import until

KEYS = ("a", "b", "c")


def notes(count: int) -> list[Message]:
    """Events of three keys in turn."""
    return [note(key) for key, _ in zip(itertools.cycle(KEYS), range(count), strict=False)]


async def arrived(
    server: NatsServer, count: int, *, seconds: float = 20.0
) -> list[Mapping[str, str]]:
    """Wait until the stream has this many messages; their headers."""
    async with server.jetstream() as jetstream:

        async def enough() -> bool:
            return await length(jetstream) >= count

        await until(enough, f"{count} events on the broker", seconds=seconds)
        return await stored(jetstream)


async def test_events_are_published_once_and_in_order(
    record: Database, broker_server: NatsServer
) -> None:
    """Every event arrives under its id, subject and headers, and each key's in order."""
    async with publishing(record, broker_server.url) as publisher:
        ids = await publisher.append(*notes(30), started("a"))
        found = await arrived(broker_server, 31)
    assert sorted(each["Nats-Msg-Id"] for each in found) == sorted(ids)
    assert in_order(found)
    last = next(each for each in found if each["ce-id"] == ids[-1])
    assert last["ce-type"] == "shop.orders.v1.OrderShippingStarted"
    assert (last["ce-subject"], last["ce-sequence"], last["ce-source"]) == ("a", "11", "/orders")
    assert last["traceparent"]


async def test_a_key_becomes_one_token_of_the_subject(
    record: Database, broker_server: NatsServer
) -> None:
    """Keys with dots, blanks and wildcards are published, and are told apart."""
    keys = ["SKU-1.5", "a b", "*", ">", "100%"]
    async with publishing(record, broker_server.url) as publisher:
        await publisher.append(*(note(key) for key in keys))
        found = await arrived(broker_server, len(keys))
        async with broker_server.jetstream() as jetstream:
            subjects = {(await jetstream.get_msg(STREAM, n + 1)).subject for n in range(len(keys))}
    assert {each["ce-subject"] for each in found} == set(keys)
    assert len(subjects) == len(keys)
    assert all(subject and subject.count(".") == 3 for subject in subjects)


async def test_positions_are_given_while_the_broker_is_away(
    record: Database, broker_server: NatsServer
) -> None:
    """Without a broker the record still grows; when it comes, everything is published."""
    broker_server.kill()
    async with publishing(record, broker_server.url) as publisher:
        await publisher.append(*notes(20))

        async def numbered() -> bool:
            return await publisher.head() == 20

        await until(numbered, "all positions", seconds=5)
        await broker_server.start()
        assert in_order(await arrived(broker_server, 20))


async def test_a_broker_that_is_killed_gets_everything_in_the_end(
    record: Database, broker_server: NatsServer
) -> None:
    """Killed twice while events are published, it has each of them in the end, and in order."""
    async with publishing(record, broker_server.url) as publisher:
        appending = asyncio.create_task(publisher.append(*notes(400)))
        for _ in range(2):
            await asyncio.sleep(0.15)
            await broker_server.restart()
        ids = set(await appending)
        async with broker_server.jetstream() as jetstream:

            async def complete() -> bool:
                return await length(jetstream) >= 400

            await until(complete, "all events")
            found = await stored(jetstream)
    assert {each["ce-id"] for each in found} == ids
    assert in_order(found)


async def test_a_restarted_relay_publishes_nothing_twice(
    record: Database, broker_server: NatsServer
) -> None:
    """The next life of a publisher goes on behind what was acknowledged."""
    async with publishing(record, broker_server.url) as first:
        await first.append(*notes(10))
        await arrived(broker_server, 10)
        await until(lambda: _noted(record, 10), "the note of it")
    async with publishing(record, broker_server.url) as second:
        sent: list[Event] = []
        send = second.publisher._send

        async def counting(jetstream: JetStreamContext, mark: Mark, batch: list[Event]) -> Mark:
            sent.extend(batch)
            return await send(jetstream, mark, batch)

        second.publisher._send = counting  # type: ignore[method-assign]
        await second.append(note("z"))
        await arrived(broker_server, 11)
    assert [event.key for event in sent] == ["z"]


async def test_a_stream_that_was_deleted_is_filled_again(
    record: Database, broker_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with nothing new to publish, a stream that has gone is noticed and filled again."""
    monkeypatch.setattr(module, "CHECK", 0.1)
    async with publishing(record, broker_server.url) as publisher:
        ids = await publisher.append(*notes(12))
        await arrived(broker_server, 12)
        async with broker_server.jetstream() as jetstream:
            await jetstream.delete_stream(STREAM)
        found = await arrived(broker_server, 12)
    assert [each["ce-id"] for each in found if each["ce-subject"] == "a"] == ids[::3]


async def test_a_broker_that_lost_its_disk_is_filled_again(
    record: Database, broker_server: NatsServer
) -> None:
    """With an empty store and new events to publish, the old ones are published too, and first."""
    async with publishing(record, broker_server.url) as publisher:
        ids = await publisher.append(*notes(12))
        await arrived(broker_server, 12)
        broker_server.kill()
        broker_server.wipe()
        ids += await publisher.append(*notes(12))
        await broker_server.start()
        found = await arrived(broker_server, 24)
    assert {each["ce-id"] for each in found} == set(ids)
    assert in_order(found)


@pytest.mark.parametrize("later", [1, 30], ids=["fewer", "more"])
async def test_a_stream_that_lost_its_tail_is_filled_again(
    record: Database, broker_server: NatsServer, later: int
) -> None:
    """What a broker forgot is published again, whether fewer or more events come after that.

    With more, the stream is soon as long as it was, and only the sequences of the
    acknowledgements tell that something is missing.
    """
    async with publishing(record, broker_server.url) as publisher:
        ids = await publisher.append(*notes(6))
        await arrived(broker_server, 6)
        broker_server.stop()
        broker_server.save()
        await broker_server.start()
        ids += await publisher.append(*notes(12))
        await arrived(broker_server, 18)
        await until(lambda: _noted(record, 18), "the note of it")
        broker_server.kill()
        broker_server.restore()
        await broker_server.start()
        ids += await publisher.append(*notes(later))

        async def complete() -> bool:
            async with broker_server.jetstream() as jetstream:
                if not await length(jetstream):
                    return False
                return {each["ce-id"] for each in await stored(jetstream)} == set(ids)

        await until(complete, "all events to be there again", seconds=8)


async def test_events_too_old_for_the_broker_stay_in_the_record(
    record: Database, broker_server: NatsServer
) -> None:
    """A new stream is not filled with what receivers may have forgotten that they had it."""

    def old(tx: Tx) -> None:
        tx.execute("UPDATE events SET occurred_at = occurred_at - :age", {"age": MAX_AGE + 60})

    publisher = OrdersProcess(record, broker_server.url)
    await publisher.append(note("a"), note("a"))
    await record.write(old)
    [young] = await publisher.append(note("a"))
    await record.write(outbox.number)
    async with publishing(record, broker_server.url) as second:
        [new] = await second.append(note("b"))
        found = await arrived(broker_server, 2)
    assert [each["ce-id"] for each in found] == [young, new]


async def test_two_relays_number_once(
    postgres_url: str, service: str, broker_server: NatsServer
) -> None:
    """Replicas that append at the same time: dense positions, each key in order; one may die."""
    databases = [await open_database(postgres_url, service) for _ in range(2)]
    await migrate(databases[0], "runtime", MIGRATIONS)
    async with publishing(databases[0], broker_server.url) as one:
        async with publishing(databases[1], broker_server.url) as two:
            await asyncio.gather(
                one.append(*(note(f"one{n % 5}") for n in range(100))),
                two.append(*(note(f"two{n % 5}") for n in range(100))),
            )
            await arrived(broker_server, 200)
        await one.append(*(note(f"one{n % 5}") for n in range(20)))
        await arrived(broker_server, 220)
    found = await databases[0].read(lambda tx: outbox.after_position(tx, 0, 1000))
    assert [event.position for event in found] == list(range(1, 221))
    for key in {event.key for event in found}:
        sequences = [event.sequence for event in found if event.key == key]
        assert sequences == list(range(1, len(sequences) + 1))
    for database in databases:
        await database.close()


async def test_numbering_at_the_same_time_conflicts(postgres_url: str, service: str) -> None:
    """Should the lock be lost, numbering at once neither repeats nor changes a position."""
    database = await open_database(postgres_url, service)
    await migrate(database, "runtime", MIGRATIONS)
    publisher = OrdersProcess(database, "nats://127.0.0.1:1")
    seen: dict[str, int | None] = {}

    async def number() -> None:
        for _ in range(30):
            await asyncio.gather(
                *(database.write(outbox.number) for _ in range(3)), return_exceptions=True
            )
            for event in await database.read(lambda tx: outbox.after_position(tx, 0, 1000)):
                assert seen.setdefault(event.event_id, event.position) == event.position

    await asyncio.gather(publisher.append(*notes(90)), number())
    await database.write(outbox.number)
    found = await database.read(lambda tx: outbox.after_position(tx, 0, 1000))
    assert [event.position for event in found] == list(range(1, 91))
    await database.close()


marks = st.builds(Mark, st.sampled_from(["x", "y"]), st.integers(0, 10_000), st.integers(0, 10_000))


@given(mark=marks, created=st.sampled_from(["x", "y"]), last=st.integers(0, 10_000), data=st.data())
def test_recovery_never_skips_an_event(
    mark: Mark, created: str, last: int, data: st.DataObject
) -> None:
    """It goes on where it was only if the stream is the same and complete, and else goes back."""
    at_last = data.draw(st.integers(0, mark.position))
    expired = data.draw(st.integers(0, mark.position))
    after = recover(mark, created, last, at_last, expired)
    assert after.created == created
    assert after.position <= mark.position
    if mark.created != created:
        assert (after.position, after.acknowledged) == (expired, 0)
    elif last < mark.acknowledged:
        assert (after.position, after.acknowledged) == (at_last, last)
    else:
        assert after == mark
    assert recover(after, created, max(last, after.acknowledged), at_last, expired) == after


@given(keys=st.lists(st.sampled_from("abcdef"), max_size=12))
def test_no_key_is_twice_in_flight(keys: list[str]) -> None:
    """What is sent together is the longest beginning of the batch in which no key repeats."""
    batch = [
        Event(str(n), n, key, 1, "t", 1, "s", b"", "", "{}", 0.0) for n, key in enumerate(keys)
    ]
    sent = without_repeated_keys(batch)
    assert sent == batch[: len(sent)]
    assert max(Counter(event.key for event in sent).values(), default=1) == 1
    if len(sent) < len(batch):
        assert batch[len(sent)].key in {event.key for event in sent}
    assert bool(sent) == bool(batch)


async def _noted(database: Database, position: int) -> bool:
    row = await database.read(lambda tx: tx.one("SELECT position FROM relay"))
    return row is not None and row["position"] == position
