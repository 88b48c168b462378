"""The ledger on each database: it always balances, whatever comes, how often and in what order."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.database import Database, Tx
from accord_runtime.database.migrations import migrate
from accord_runtime.events.inbox import Received
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from services.accounting import domain, posting, store
from services.accounting.domain import DEPOSITS, RECEIVABLE, REFUNDS, REVENUE, Known, Posting
from shop.accounting.v1 import accounting_pb2 as pb
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1 import orders_pb2
from shop.payments.v1 import events_pb2 as payments
from shop.payments.v1 import payments_pb2
from tests.support.shop import euros

PRICE: Final = 499
CAPTURED: Final = payments.PaymentCaptured(amount=euros(PRICE))
PAID: Final = orders.OrderPaid(amount=euros(PRICE))
CONFIRMED: Final = orders.OrderConfirmed(total=euros(PRICE))
REFUNDED: Final = payments.PaymentRefunded(amount=euros(PRICE))
NOTHING: Final = payments.PaymentRefunded()
FAILED: Final = orders.OrderFailed()
CANCELLED: Final = orders.OrderCancelled()

Balances = Mapping[int, int]
"""Account -> debits less credits."""

LIVES: Final[Sequence[tuple[Sequence[Message], Balances]]] = (
    ((CAPTURED, PAID, CONFIRMED), {RECEIVABLE: PRICE, REVENUE: -PRICE}),
    ((CAPTURED, PAID), {RECEIVABLE: PRICE, DEPOSITS: -PRICE}),
    ((CAPTURED, PAID, REFUNDED, CANCELLED), {}),
    ((CAPTURED, REFUNDED, FAILED), {}),
    ((NOTHING, FAILED), {}),
    ((FAILED,), {}),
    # As it was before payments published events.
    ((PAID, CONFIRMED), {RECEIVABLE: PRICE, REVENUE: -PRICE}),
    ((PAID, CANCELLED), {}),
    # Given back after it was earned.
    ((CAPTURED, PAID, CONFIRMED, REFUNDED), {REVENUE: -PRICE, REFUNDS: PRICE}),
)
"""What happens to an order -> what is left of it in the books."""


@pytest.fixture
async def ledger(database: Database) -> Database:
    """An empty ledger."""
    await migrate(database, "accounting", store.MIGRATIONS)
    return database


def received(order_id: str, event: Message, at: float = 0.0) -> Received[Message]:
    """An event as it is handled."""
    return Received(uuid7(), order_id, 1, event, at)


def left(balances: Sequence[pb.Balance]) -> Balances:
    """What is left in each account."""
    sums = {each.account: each.debit - each.credit for each in balances}
    return {account: amount for account, amount in sums.items() if amount}


def check_balanced(tx: Tx) -> None:
    """Debits and credits are the same, in each currency and in each transaction."""
    assert not tx.all(
        "SELECT transaction_id FROM ledger_entry GROUP BY transaction_id, currency"
        " HAVING SUM(amount) <> 0"
    )


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_and_twice(ledger: Database, seed: int) -> None:
    """Every life, its events twice and in any order: the same books, balanced at every instant."""
    random = Random(seed)
    lives = {uuid7(): life for life in LIVES}
    coming = [
        received(order_id, event) for order_id, (life, _) in lives.items() for event in [*life] * 2
    ]
    random.shuffle(coming)
    for event in coming:
        await ledger.write(lambda tx: posting.take(tx, event, 0.0))  # noqa: B023
        await ledger.read(check_balanced)
    for order_id, (_, expected) in lives.items():
        found = await ledger.read(lambda tx: store.of_order(tx, order_id))  # noqa: B023
        assert {a: amount for (a, _), amount in found.items() if amount} == expected
    total: dict[int, int] = {}
    for account, amount in itertools.chain(*(left.items() for _, left in LIVES)):
        total[account] = total.get(account, 0) + amount
    balances = await ledger.read(lambda tx: store.balances(tx, math.inf))
    assert left(balances) == total


@given(st.lists(st.sampled_from([CAPTURED, PAID, CONFIRMED, REFUNDED, NOTHING, FAILED, CANCELLED])))
def test_every_transaction_balances(events: list[Message]) -> None:
    """Whatever is said of an order, sensible or not: each transaction sums up to zero, once."""
    known, kinds = Known(), list[str]()
    for event in events:
        known = domain.learn(known, event)
        for due in domain.due(known):
            assert sum(due.debits.values()) == 0
            assert len(due.debits) == 2
            kinds.append(due.kind)
            known = replace(known, posted=(*known.posted, due.kind))
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("debits", [{RECEIVABLE: 5, DEPOSITS: -4}, {RECEIVABLE: 5}, {}])
async def test_what_does_not_balance_is_not_written(
    ledger: Database, debits: dict[int, int]
) -> None:
    """The transaction that would write it is undone as a whole."""
    bad = Posting("CAPTURED", "EUR", debits)
    with pytest.raises(store.UnbalancedError):
        await ledger.write(lambda tx: store.post(tx, uuid7(), bad, uuid7(), 0.0, 0.0))
    rows = "SELECT transaction_id FROM ledger_transaction UNION SELECT transaction_id FROM"
    assert await ledger.read(lambda tx: tx.all(f"{rows} ledger_entry")) == []


async def test_as_of_a_time(ledger: Database) -> None:
    """The books of a time say what had happened by then, though it was written later."""
    order_id = uuid7()
    for at, event in ((10.0, CAPTURED), (20.0, CONFIRMED)):
        await ledger.write(lambda tx: posting.take(tx, received(order_id, event, at), 99.0))  # noqa: B023
    expected: dict[float, Balances] = {
        9.0: {},
        10.0: {RECEIVABLE: PRICE, DEPOSITS: -PRICE},
        20.0: {RECEIVABLE: PRICE, REVENUE: -PRICE},
    }
    for at, balances in expected.items():
        assert left(await ledger.read(lambda tx: store.balances(tx, at))) == balances  # noqa: B023


async def test_currencies_are_apart(ledger: Database) -> None:
    """A balance is of one account and one currency."""
    dollars = payments.PaymentCaptured(amount=euros(PRICE))
    dollars.amount.currency_code = "USD"
    for event in (CAPTURED, dollars):
        await ledger.write(lambda tx: posting.take(tx, received(uuid7(), event), 0.0))  # noqa: B023
    found = await ledger.read(lambda tx: store.balances(tx, math.inf, RECEIVABLE))
    assert {each.currency_code: each.debit for each in found} == {"EUR": PRICE, "USD": PRICE}
    asked = Page(pb.ListTransactionsRequest())
    listed, _ = await ledger.read(lambda tx: store.transactions(tx, asked, ""))
    assert [len(each.entries) for each in listed] == [2, 2]


def compared(
    known: Known, balances: Balances, status: str, state: str, price: int = PRICE
) -> list[tuple[str, int, int]]:
    """The differences of an order and a payment in these states: kind, expected, actual."""
    order = orders_pb2.Order(
        status=orders_pb2.OrderStatus.Value(f"ORDER_STATUS_{status}"), total=euros(price)
    )
    payment = payments_pb2.Payment(
        state=payments_pb2.PaymentState.Value(f"PAYMENT_STATE_{state}"), amount=euros(price)
    )
    ledger = {(account, "EUR"): amount for account, amount in balances.items()}
    found = domain.differences("", known, ledger, order, payment)
    return [(pb.DifferenceKind.Name(each.kind)[16:], each.expected, each.actual) for each in found]


def test_what_is_compared() -> None:
    """Books that agree have no difference; each that does not is named, with both amounts."""
    known = Known(captured=(PRICE, "EUR"), paid=(PRICE, "EUR"))
    good: Balances = {RECEIVABLE: PRICE, REVENUE: -PRICE}
    owed: Balances = {RECEIVABLE: PRICE, DEPOSITS: -PRICE}
    assert compared(known, good, "CONFIRMED", "CAPTURED") == []
    assert compared(known, owed, "SHIPPED", "CAPTURED") == []
    assert compared(Known(), {}, "REJECTED", "DECLINED") == []
    assert compared(known, {}, "CANCELLED", "REFUNDED") == []
    assert compared(known, owed, "UNDOING", "REFUNDING") == []
    assert compared(known, owed, "CREATED", "PENDING") == []
    assert compared(known, owed, "CONFIRMED", "CAPTURED") == [
        ("INCOME", -PRICE, 0),
        ("DEPOSITS", 0, -PRICE),
    ]
    assert compared(known, owed, "CANCELLED", "REFUNDED") == [
        ("RECEIVABLE", 0, PRICE),
        ("DEPOSITS", 0, -PRICE),
    ]
    assert compared(known, {}, "CONFIRMED", "CAPTURED", 500) == [
        ("RECEIVABLE", 500, 0),
        ("INCOME", -500, 0),
    ]
    believed = Known(paid=(PRICE, "EUR"))
    assert compared(believed, good, "CONFIRMED", "CAPTURED") == [("NO_PAYMENT_EVENT", PRICE, PRICE)]
