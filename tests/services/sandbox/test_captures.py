"""The card processor's memory and the ledger beneath it."""

import asyncio
from functools import partial

import pytest

from accord_runtime.database import Database
from accord_runtime.grpc.types import timestamp
from services.sandbox import captures, store
from services.sandbox.domain import Capture, CaptureState
from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1 import sandbox_pb2 as pb
from shop.sandbox.v1.sandbox_pb2 import ReadLedgerResponse

PRICE = Money(minor_units=1999, currency_code="EUR")


async def take(database: Database, key: str = "k", declined: str = "") -> tuple[Capture, bool]:
    return await database.write(
        partial(
            captures.capture,
            key=key,
            reference="order",
            amount=PRICE,
            decline_reason=declined,
            now=1.5,
        )
    )


async def give_back(database: Database, key: str = "k") -> Capture:
    return await database.write(partial(captures.reverse, key=key, reference="order", now=2.5))


async def ledger(database: Database) -> list[ReadLedgerResponse]:
    return list(
        await database.read(lambda tx: store.read_entries(tx, 0, store.ledger_head(tx), "", 100))
    )


def entry(number: int, kind: "pb.EntryKind.ValueType", at: float) -> ReadLedgerResponse:
    return ReadLedgerResponse(
        number=number,
        kind=kind,
        key="k",
        reference="order",
        amount=PRICE,
        at=timestamp(at),
    )


async def test_a_repeat_takes_nothing_more(tables: Database) -> None:
    """A key takes money once, and its repeat returns the first capture."""
    first, fresh = await take(tables)
    again, fresh_again = await take(tables)

    assert (first.state, fresh) == (CaptureState.CAPTURED, True)
    assert (again, fresh_again) == (first, False)
    assert await ledger(tables) == [entry(1, pb.ENTRY_KIND_CAPTURED, 1.5)]


async def test_concurrent_repeats_take_money_once(tables: Database) -> None:
    """Captures of one key at the same moment make one entry."""
    answers = await asyncio.gather(*(take(tables) for _ in range(20)))

    assert len({capture.capture_id for capture, _ in answers}) == 1
    assert sum(fresh for _, fresh in answers) == 1
    assert len(await ledger(tables)) == 1


async def test_a_declined_key_stays_declined(tables: Database) -> None:
    """The first answer is the answer, also when the card would be good now."""
    await take(tables, declined="no")
    again, _ = await take(tables)

    assert (again.state, again.decline_reason) == (CaptureState.DECLINED, "no")
    assert await ledger(tables) == []


async def test_what_was_taken_is_given_back_once(tables: Database) -> None:
    """Reversals of one key make one entry, with the amount that was taken."""
    await take(tables)
    reversed_ = await asyncio.gather(*(give_back(tables) for _ in range(5)))

    assert {capture.state for capture in reversed_} == {CaptureState.REVERSED}
    assert all(capture.amount == PRICE for capture in reversed_)
    assert await ledger(tables) == [
        entry(1, pb.ENTRY_KIND_CAPTURED, 1.5),
        entry(2, pb.ENTRY_KIND_REVERSED, 2.5),
    ]


@pytest.mark.parametrize(
    ("declined", "state"), [("", CaptureState.REVERSED), ("no", CaptureState.DECLINED)]
)
async def test_a_reversed_key_takes_nothing_later(
    tables: Database, declined: str, state: CaptureState
) -> None:
    """A capture after the reversal finds where the key stands and moves no money."""
    await take(tables, declined=declined)
    await give_back(tables)
    before = await ledger(tables)
    late, fresh = await take(tables)

    assert (late.state, fresh) == (state, False)
    assert await ledger(tables) == before


async def test_an_unknown_key_is_blocked(tables: Database) -> None:
    """A reversal that comes first keeps its capture from ever taking money."""
    blocked = await give_back(tables)
    late, fresh = await take(tables)

    assert (blocked.state, late.state, fresh) == (CaptureState.BLOCKED, CaptureState.BLOCKED, False)
    assert await ledger(tables) == []


async def test_a_capture_and_its_reversal_in_a_race_leave_nothing_taken(tables: Database) -> None:
    """Whichever comes first, the money is back or was never taken."""
    for number in range(10):
        key = f"race {number}"
        await asyncio.gather(take(tables, key), give_back(tables, key))
    kinds = [(entry.key, entry.kind) for entry in await ledger(tables)]

    for number in range(10):
        mine = [kind for key, kind in kinds if key == f"race {number}"]
        assert mine in ([], [pb.ENTRY_KIND_CAPTURED, pb.ENTRY_KIND_REVERSED])


async def test_entries_are_numbered_without_gaps(tables: Database) -> None:
    """Concurrent appends get dense numbers, so that a reader can go on from any of them."""
    await asyncio.gather(*(take(tables, f"key {number}") for number in range(50)))

    assert [entry.number for entry in await ledger(tables)] == list(range(1, 51))


async def test_calls_of_a_flaky_card_are_counted_per_key(tables: Database) -> None:
    """Each key has a count of its own."""
    counts = [
        await tables.write(partial(captures.count_call, key=key)) for key in ("a", "a", "b", "a")
    ]

    assert counts == [1, 2, 1, 3]
