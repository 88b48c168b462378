"""The record as its callers read it."""

import asyncio

import pytest

from accord.errors import OutOfRange
from accord_runtime.database import Database
from accord_runtime.events import outbox
from accord_runtime.events import record as reading
from accord_runtime.events.notifier import RECORD, Notifier
from accord_runtime.events.record import RecordReader
from shop.orders.v1.orders_pb2 import ReadEventsRequest, ReadEventsResponse
from tests.runtime.events.support import append, note

NOTE = "shop.orders.v1.OrderNoteAdded"


async def read(database: Database, **asked: object) -> list[int]:
    """The positions of what is read."""
    request = ReadEventsRequest(**asked)  # type: ignore[arg-type]
    reader = RecordReader(database, Notifier())
    return [each.position async for each in reader.read(request, ReadEventsResponse)]


async def test_a_record_is_read_from_anywhere(
    record: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches or not, every event comes once, in order; of other types and later ones none."""
    for number in range(1, 8):
        await record.write(lambda tx, n=number: append(tx, note(f"k{n}"), sequence=1, now=1.0))  # type: ignore[misc]
    await record.write(outbox.number)
    for batch in (1, 3, 200):
        monkeypatch.setattr(reading, "BATCH", batch)
        assert await read(record) == [1, 2, 3, 4, 5, 6, 7]
        assert await read(record, after_position=5, types=[NOTE]) == [6, 7]
        assert await read(record, types=["shop.orders.v1.OrderPlaced"]) == []
        assert await read(record, after_position=7) == []
        with pytest.raises(OutOfRange, match="the last event is 7"):
            await read(record, after_position=8)


async def test_a_follower_stays(record: Database) -> None:
    """It gets what is committed and numbered later, once it is woken."""
    notifier = Notifier()
    request = ReadEventsRequest(follow=True)
    events = RecordReader(record, notifier).read(request, ReadEventsResponse)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await record.write(lambda tx: append(tx, note("k", "hello"), sequence=1, now=1.0))
    await record.write(outbox.number)
    while not waiting.done():
        notifier.changed(RECORD)
        await asyncio.sleep(0.01)
    assert waiting.result().event.key == "k"
    await events.aclose()
