"""The carrier's memory."""

from functools import partial

from accord_runtime.database import Database
from services.sandbox import parcels, store
from services.sandbox.domain import Parcel, ParcelState
from shop.sandbox.v1 import sandbox_pb2 as pb


async def book(database: Database, *, refused: bool = False) -> Parcel:
    return await database.write(
        partial(parcels.book, key="k", reference="order", units=3, now=1.0, refused=refused)
    )


async def cancel(database: Database, *, handed_over: bool = False) -> Parcel:
    return await database.write(
        partial(parcels.cancel, key="k", reference="order", now=2.0, handed_over=handed_over)
    )


async def ledger(database: Database) -> list[tuple["pb.EntryKind.ValueType", int]]:
    entries = await database.read(lambda tx: store.read_entries(tx, 0, 100, "", 100))
    return [(entry.kind, entry.units) for entry in entries]


async def test_a_repeat_books_nothing_more(tables: Database) -> None:
    """A key books one parcel, with one tracking number."""
    first, again = await book(tables), await book(tables)

    assert first == again
    assert first.state is ParcelState.BOOKED
    assert first.tracking_number
    assert await ledger(tables) == [(pb.ENTRY_KIND_BOOKED, 3)]


async def test_a_refused_key_stays_refused(tables: Database) -> None:
    """The first answer is the answer."""
    await book(tables, refused=True)

    assert (await book(tables)).state is ParcelState.REFUSED
    assert await ledger(tables) == []


async def test_a_parcel_is_cancelled_once(tables: Database) -> None:
    """Cancelling again changes nothing, and the key books nothing later."""
    await book(tables)
    first, again, late = await cancel(tables), await cancel(tables), await book(tables)

    assert first == again == late
    assert first.state is ParcelState.CANCELLED
    assert await ledger(tables) == [(pb.ENTRY_KIND_BOOKED, 3), (pb.ENTRY_KIND_CANCELLED, 3)]


async def test_an_unknown_key_is_blocked(tables: Database) -> None:
    """A cancellation that comes first keeps its booking from ever succeeding."""
    await cancel(tables)

    assert (await book(tables)).state is ParcelState.BLOCKED
    assert await ledger(tables) == []


async def test_a_parcel_on_its_way_is_never_cancelled(tables: Database) -> None:
    """Once handed over, no later cancellation succeeds, and a repeated booking is still good."""
    booked = await book(tables)
    await cancel(tables, handed_over=True)
    later, repeat = await cancel(tables), await book(tables)

    assert later.state is ParcelState.HANDED_OVER
    assert repeat.tracking_number == booked.tracking_number
    assert await ledger(tables) == [(pb.ENTRY_KIND_BOOKED, 3)]
