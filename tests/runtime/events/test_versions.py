"""Events of older and newer versions than the code that reads them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from accord import EventPolicy, event_policy
from accord.v1 import policy_pb2
from accord_runtime.database import Database, Tx
from accord_runtime.events import versions
from accord_runtime.events.inbox import Received
from accord_runtime.events.outbox import MAX_BYTES, of_key
from accord_runtime.events.versions import TooNew, Upcasters
from accord_runtime.work import table
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded, OrderShippingStarted
from tests.runtime.events.support import (
    append,
    note,
    publishing,
    receiving,
    record_of,
    started,
)
from tests.runtime.events.test_inbox import KIND, Notes, has, make_stream, send
from tests.runtime.work.support import parked_items, result
from tests.support.nats import NatsServer
from tests.support.wait import until


def _weighed() -> type[Message]:
    """An event of version 3: kilograms in version 1, grams in 2, grams with packing in 3."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/weighed.proto", package="tests.v1", syntax="proto3"
    )
    message = file.message_type.add(name="Weighed")
    for number, name in enumerate(("order_id", "weight", "packing"), start=1):
        kind = descriptor_pb2.FieldDescriptorProto.Type.Value(
            "TYPE_STRING" if number == 1 else "TYPE_INT64"
        )
        message.field.add(name=name, number=number, type=kind, label=1)
    event = message.options.Extensions[policy_pb2.event]
    event.subject, event.version, event.key = "orders.order.weighed", 3, "order_id"
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("tests.v1.Weighed"))


Weighed: Any = _weighed()


def to_grams(event: Any) -> None:
    event.weight *= 1000


def with_packing(event: Any) -> None:
    event.packing = 50


STEPS = Upcasters({Weighed: [to_grams, with_packing]})


class Scales:
    """A handler that notes what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    async def __call__(self, event: Received[Any]) -> Effect:
        self.seen.append((event.key, event.payload.weight, event.payload.packing))
        return result(event.event_id)


def test_each_version_is_taken_up_step_by_step() -> None:
    """Whatever version was written, today's meaning is read; a newer one is refused by name."""
    written = Weighed(order_id="k", weight=2, packing=7).SerializeToString()
    assert STEPS.read(Weighed, 1, written) == Weighed(order_id="k", weight=2000, packing=50)
    assert STEPS.read(Weighed, 2, written) == Weighed(order_id="k", weight=2, packing=50)
    assert STEPS.read(Weighed, 3, written) == Weighed(order_id="k", weight=2, packing=7)
    with pytest.raises(TooNew, match=r"tests.v1.Weighed of version 4 is newer .* version 3"):
        STEPS.read(Weighed, 4, written)
    with pytest.raises(ValueError, match="no version 0"):
        STEPS.read(Weighed, 0, written)
    with pytest.raises(DecodeError):
        STEPS.read(Weighed, 3, b"\xff")


def test_what_an_older_reader_does_not_know_stays_in_the_event() -> None:
    """A field that was added without a new version harms nobody and is not lost on the way."""
    newer = note("k", "text").SerializeToString() + b"\xfa\x7f\x03new"
    read = versions.AS_WRITTEN.read(OrderNoteAdded, 1, newer)
    assert (read.note, read.SerializeToString()) == ("text", newer)


@pytest.mark.parametrize("steps", [[], [to_grams], [to_grams] * 3])
def test_a_version_that_nobody_can_read_refuses_the_start(steps: Sequence[Any]) -> None:
    """Who reads an event of version 3 says how versions 1 and 2 become that, no more, no less."""
    with pytest.raises(ValueError, match=f"2 upcasters lead to it, not {len(steps)}"):
        Upcasters({Weighed: steps}).check(Weighed)


async def test_a_new_reader_reads_an_old_record(
    record: Database, broker_server: NatsServer
) -> None:
    """Fold and handlers see events that the version before has written with today's meaning."""
    scales = Scales()

    def write(tx: Tx) -> None:
        for sequence, weight in ((1, 2), (2, 3)):
            event = Weighed(order_id="k", weight=weight)
            append(tx, event, sequence=sequence, now=time.time())
        tx.execute("UPDATE events SET version = sequence")

    await record.write(write)
    async with (
        publishing(record, broker_server.url),
        receiving(
            record, broker_server.url, {Weighed: scales}, record=record_of(record), upcasters=STEPS
        ),
    ):
        await until(has(record, 2), "both events")
    assert scales.seen == [("k", 2000, 50), ("k", 3, 50)]
    found = await record.read(lambda tx: of_key(tx, "k"))
    assert [event.read(STEPS).weight for event in found] == [2000, 3]  # type: ignore[attr-defined]


async def test_a_newer_event_waits_for_the_upgrade(
    record: Database, broker_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer producer stops an older consumer for the keys concerned only.

    Upgraded and told to try again, it handles them in their order.
    """
    scales = Scales()
    handlers = {Weighed: scales}
    to = "orders.order.weighed."
    kind = {"ce_type": "tests.v1.Weighed"}
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        async with receiving(record, broker_server.url, handlers, upcasters=STEPS):
            await send(jetstream, "new", 1, f"{to}new", ce_dataversion="4", **kind)
            await send(jetstream, "new", 2, f"{to}new", ce_dataversion="3", **kind)
            await send(jetstream, "old", 1, f"{to}old", ce_dataversion="3", **kind)

            async def parked() -> bool:
                return bool(await record.read(parked_items)) and bool(await has(record, 1)())

            await until(parked, "one to be parked, and another to be handled")
    assert [key for key, *_ in scales.seen] == ["old"]
    [waits] = await record.read(parked_items)
    assert "tests.v1.Weighed of version 4 is newer than what is known" in waits.last_error

    def upgraded(message: type[Message]) -> EventPolicy | None:
        policy = event_policy(message)
        return policy and replace(policy, version=4)

    monkeypatch.setattr(versions, "event_policy", upgraded)
    upcasters = Upcasters({Weighed: [to_grams, with_packing, lambda event: None]})
    async with receiving(record, broker_server.url, handlers, upcasters=upcasters) as executor:
        await record.write(lambda tx: table.unpark(tx, waits.id, time.time()))
        executor.wake()
        await until(has(record, 3), "the others")
    assert [key for key, *_ in scales.seen] == ["old", "new", "new"]


async def test_an_upgraded_consumer_gets_what_it_did_not_handle_before(
    record: Database, broker_server: NatsServer
) -> None:
    """Events of a type that gets a handler are handled from the record, each once, young ones."""
    notes, more = Notes(), Notes()
    read = record_of(record)
    async with publishing(record, broker_server.url) as process:
        ancient = time.time() - 40 * 24 * 3600
        await record.write(lambda tx: append(tx, started("a"), sequence=1, now=ancient))
        await process.append(note("k"), started("k"), note("k"), started("k"))
        async with receiving(record, broker_server.url, {OrderNoteAdded: notes}, record=read):
            await until(has(record, 2), "the notes")
            # As an audit would have done; else it would find them all the same.
            await record.write(lambda tx: tx.execute("UPDATE consumed SET position = 5"))
        both = {OrderNoteAdded: notes, OrderShippingStarted: more}
        async with receiving(record, broker_server.url, both, record=read):
            await process.append(started("k"))
            await until(has(record, 5), "what was not handled before")
        async with receiving(record, broker_server.url, both, record=read):
            await process.append(note("k"))
            await until(has(record, 6), "what comes after that")
    assert notes.sequences == {"k": [1, 3, 6]}
    assert more.sequences == {"k": [2, 4, 5]}


async def test_an_event_that_is_too_large_is_parked(record: Database, tmp_path: Path) -> None:
    """A message of 2 MB, which only another broker lets through, stops nothing.

    None is appended to a record.
    """
    (tmp_path / "nats.conf").write_text("max_payload: 4MB\n")
    server = NatsServer(tmp_path, "-c", str(tmp_path / "nats.conf"))
    await server.start()
    notes = Notes()
    try:
        async with (
            server.jetstream() as jetstream,
            receiving(record, server.url, {OrderNoteAdded: notes}),
        ):
            await make_stream(jetstream)
            headers = {"ce-id": "i", "ce-type": KIND, "ce-subject": "big", "ce-sequence": "1"}
            large = note("big", "x" * 2_000_000).SerializeToString()
            await jetstream.publish("orders.order.note_added.big", large, headers=headers)
            await send(jetstream, "small", 1)
            await until(has(record, 1), "the small one")

            async def parked() -> bool:
                return bool(await record.read(parked_items))

            await until(parked, "the large one")
    finally:
        server.kill()
    [waits] = await record.read(parked_items)
    assert f"an event has {MAX_BYTES} bytes at most, not {len(large)}" in waits.last_error
    large_note = note("big", "x" * MAX_BYTES)
    with pytest.raises(ValueError, match="bytes, too many"):
        await record.write(lambda tx: append(tx, large_note, sequence=1, now=0.0))
