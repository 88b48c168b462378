"""The event table: appending, reading, and the numbering of positions."""

import itertools
import random
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord import telemetry
from accord_runtime.database import Conflict, Database, Tx
from accord_runtime.events import outbox
from accord_runtime.events.record import envelope as envelope_of
from shop.common.v1.event_pb2 import EventRecord
from shop.orders.v1.events_pb2 import OrderNoteAdded, OrderPlaced
from shop.orders.v1.orders_pb2 import GetOrderRequest
from tests.runtime.events.support import append, note, started

NOW = 1_750_000_000.25


async def test_an_event_is_read_as_it_was_appended(record: Database) -> None:
    """Key, type, version, subject, payload, cause, trace and time come back as they went in."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with telemetry.use_trace({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}):
        written = await record.write(
            lambda tx: append(tx, note("k", "hello"), sequence=1, now=NOW, causation_id="cause")
        )
    [event] = await record.read(lambda tx: outbox.of_key(tx, "k"))
    assert event == written
    assert event.message() == note("k", "hello")
    envelope = EventRecord(**envelope_of(event))
    payload = OrderNoteAdded()
    assert envelope.payload.Unpack(payload)
    assert payload.note == "hello"
    assert (envelope.key, envelope.sequence, envelope.causation_id) == ("k", 1, "cause")
    assert envelope.type == "shop.orders.v1.OrderNoteAdded"
    assert envelope.subject == "orders.order.note_added"
    assert trace in envelope.traceparent
    assert envelope.occurred_at.ToMicroseconds() == int(NOW * 1e6)


async def test_a_sequence_is_given_once(record: Database) -> None:
    """Two transactions that append the same sequence of a key: the second one conflicts."""
    first = lambda tx: append(tx, note("k"), sequence=1, now=NOW)  # noqa: E731
    await record.write(first)
    with pytest.raises(Conflict):
        await record.write(first)
    assert len(await record.read(lambda tx: outbox.of_key(tx, "k"))) == 1


@pytest.mark.parametrize("key", ["", " k", "k ", "k\n", "kä", "\x7f"])
async def test_a_key_that_cannot_travel_is_refused(record: Database, key: str) -> None:
    """A key that no message header can hold fails its transaction, not the publisher later."""
    with pytest.raises(ValueError, match="key"):
        await record.write(lambda tx: append(tx, note(key), sequence=1, now=NOW))


async def test_a_subject_that_no_stream_takes_is_refused(record: Database) -> None:
    """An event goes to the stream of its service: one of another name would never get out."""
    for service in ("", "orders"):
        events = outbox.Outbox(lambda: None, lambda key: None, service=service)
        await record.write(partial(events.append, event=note("k")))
    events = outbox.Outbox(lambda: None, lambda key: None, service="desk")
    with pytest.raises(ValueError, match=r"'orders.order.note_added', .* begin with 'desk\.'"):
        await record.write(lambda tx: events.append(tx, note("k")))


async def test_only_events_are_appended(record: Database) -> None:
    """A message without the event option is refused by name."""
    with pytest.raises(ValueError, match=r"shop.orders.v1.GetOrderRequest is no event"):
        await record.write(
            lambda tx: append(tx, GetOrderRequest(order_id="k"), sequence=1, now=NOW)
        )


async def test_what_is_redacted_is_not_published(record: Database) -> None:
    """A field that only one service may know is refused; what 0.1.0 has written of it is not read.

    All else that such an event says stays, and so does what only a newer version knows.
    """
    said = OrderPlaced(order_id="k", customer_id="c", card_token="tok_visa")
    with pytest.raises(ValueError, match=r"OrderPlaced says card_token"):
        await record.write(lambda tx: append(tx, said, sequence=1, now=NOW))
    assert not await record.read(lambda tx: outbox.of_key(tx, "k"))

    newer = b"\xfa\x7f\x03new"
    quiet = OrderPlaced(order_id="k", customer_id="c")
    await record.write(lambda tx: append(tx, quiet, sequence=1, now=NOW))
    await record.write(
        lambda tx: tx.execute(
            "UPDATE events SET payload = :payload",
            {"payload": said.SerializeToString() + newer},
        )
    )
    await record.write(lambda tx: append(tx, note("n"), sequence=1, now=NOW))
    await record.write(lambda tx: tx.execute("UPDATE events SET type = 'later' WHERE key = 'n'"))
    await record.write(outbox.number)
    first, second = await record.read(lambda tx: outbox.after_position(tx, 0, 10))
    assert [first] == await record.read(lambda tx: outbox.of_key(tx, "k"))
    assert first.payload == quiet.SerializeToString() + newer
    assert second.payload == note("n").SerializeToString()


async def test_an_event_follows_the_last_of_its_key(record: Database) -> None:
    """Without a sequence it gets the next one; one that must not be repeated is appended once."""
    left = outbox.Outbox(lambda: None, lambda key: None)

    def write(tx: Tx) -> None:
        for text in ("a", "b"):
            left.append(tx, note("k", text))
        left.append(tx, note("l"))
        for text in ("b", "c"):
            left.append_once(tx, note("k", text), "note")
        for key in ("k", "m"):
            left.append_once(tx, note(key, "d"))

    await record.write(write)
    found = await record.read(lambda tx: [*outbox.of_key(tx, "k"), *outbox.of_key(tx, "m")])
    assert [(event.sequence, event.message()) for event in found] == [
        (1, note("k", "a")),
        (2, note("k", "b")),
        (3, note("k", "c")),
        (1, note("m", "d")),
    ]


async def test_a_key_is_read_beyond_a_sequence(record: Database) -> None:
    """Reading a key after a sequence gives the later ones in order, and no other key's."""

    def write(tx: Tx) -> None:
        for sequence in (1, 2, 3):
            append(tx, note("k"), sequence=sequence, now=NOW)
            append(tx, note("l"), sequence=sequence, now=NOW)

    await record.write(write)
    found = await record.read(lambda tx: outbox.of_key(tx, "k", after=1))
    assert [(event.key, event.sequence) for event in found] == [("k", 2), ("k", 3)]


async def test_positions_are_dense_and_read_in_order(record: Database) -> None:
    """Numbered in batches, events have the positions 1..n and are read from any of them on."""

    def write(tx: Tx) -> None:
        for sequence in range(1, 8):
            append(tx, note("k"), sequence=sequence, now=NOW)
        append(tx, started("l"), sequence=1, now=NOW + 60)

    await record.write(write)
    if record.shared:
        assert await record.read(outbox.head) == 0
        given = [await record.write(lambda tx: outbox.number(tx, 3)) for _ in range(4)]
        assert given == [3, 3, 2, 0]
    assert await record.read(outbox.head) == 8
    assert await record.read(lambda tx: outbox.head(tx, before=NOW + 1)) == 7
    page = await record.read(lambda tx: outbox.after_position(tx, 2, 4))
    assert [event.position for event in page] == [3, 4, 5, 6]
    assert await record.read(lambda tx: outbox.keys_after(tx, 7)) == (8, ["l"])
    assert await record.read(lambda tx: outbox.keys_after(tx, 8)) == (8, [])
    last, keys = await record.read(lambda tx: outbox.keys_after(tx, 0))
    assert (last, sorted(keys)) == (8, ["k", "l"])


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    shuffle=st.randoms(use_true_random=False),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=20),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_numbering_keeps_the_order_of_keys_whatever_the_ids_say(
    record: Database, lengths: list[int], shuffle: random.Random, batches: list[int]
) -> None:
    """Ids of processes whose clocks disagree: positions are dense, and each key's are in order."""
    rows = [(f"k{key}", n + 1) for key, length in enumerate(lengths) for n in range(length)]
    ids = [f"{number:04}" for number in range(len(rows))]
    shuffle.shuffle(ids)

    def write(tx: Tx) -> None:
        tx.execute("DELETE FROM events")
        for id, (key, sequence) in zip(ids, rows, strict=True):  # noqa: A001
            event = append(tx, note(key), sequence=sequence, now=NOW)
            tx.execute(
                "UPDATE events SET event_id = :id WHERE event_id = :old",
                {"id": id, "old": event.event_id},
            )

    await record.write(write)
    for batch in itertools.chain(batches, itertools.repeat(100)):
        before = await record.read(outbox.head)
        numbered = await record.write(lambda tx, most=batch: outbox.number(tx, most))  # type: ignore[misc]
        assert numbered == min(batch, len(rows) - before)
        if not numbered:
            break
    found = await record.read(lambda tx: outbox.after_position(tx, 0, 1000))
    assert [event.position for event in found] == list(range(1, len(rows) + 1))
    for key in {key for key, _ in rows}:
        sequences = [event.sequence for event in found if event.key == key]
        assert sequences == sorted(sequences)
