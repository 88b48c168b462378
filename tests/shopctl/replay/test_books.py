"""Summing up the ledger of the outside world."""

from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1.sandbox_pb2 import (
    ENTRY_KIND_BOOKED,
    ENTRY_KIND_CANCELLED,
    ENTRY_KIND_CAPTURED,
    ENTRY_KIND_REVERSED,
    EntryKind,
    ReadLedgerResponse,
)
from shopctl.replay.books import LedgerBalance, balances


def entry(
    kind: EntryKind.ValueType, reference: str, cents: int = 0, units: int = 0
) -> ReadLedgerResponse:
    amount = Money(minor_units=cents, currency_code="USD") if cents else None
    return ReadLedgerResponse(kind=kind, reference=reference, amount=amount, units=units)


def test_balances() -> None:
    """What was given back is taken off, per order, and every capture and booking counts."""
    ledger = [
        entry(ENTRY_KIND_CAPTURED, "a", cents=1999),
        entry(ENTRY_KIND_CAPTURED, "b", cents=500),
        entry(ENTRY_KIND_BOOKED, "a", units=3),
        entry(ENTRY_KIND_REVERSED, "b", cents=500),
        entry(ENTRY_KIND_BOOKED, "b", units=2),
        entry(ENTRY_KIND_CANCELLED, "b", units=2),
        entry(ENTRY_KIND_CAPTURED, "b", cents=500),
    ]
    assert balances(ledger) == {
        "a": LedgerBalance(captures=1, money=1999, bookings=1, units=3),
        "b": LedgerBalance(captures=2, money=500, bookings=1, units=0),
    }
    assert balances([]) == {}
