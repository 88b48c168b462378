"""Every transition of a payment, on both backends."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from accord_runtime.database import Database, Tx
from accord_runtime.database.migrations import migrate
from services.payments import store
from services.payments.domain import Outcome, Payment, PaymentState, Refusal, refusal
from shop.common.v1.money_pb2 import Money

PRICE: Final = Money(minor_units=1999, currency_code="EUR")
OTHER: Final = Money(minor_units=1, currency_code="EUR")
ORDER: Final = "order"
NOW: Final = 1.0
LATER: Final = 2.0

Step = Callable[[Tx], object]


@pytest.fixture
async def payments(database: Database) -> Database:
    """An empty payments database, on each backend in turn."""
    await migrate(database, "payments", store.MIGRATIONS)
    return database


def charge(tx: Tx) -> Payment:
    payment = store.open_charge(tx, ORDER, PRICE, "key", NOW)
    assert payment is not None
    return payment


def answered(state: PaymentState, reason: str = "") -> Step:
    def step(tx: Tx) -> Payment:
        payment = store.find(tx, ORDER)
        assert payment is not None
        return store.settle(tx, payment, Outcome(state, reason), LATER)

    return step


def refund(tx: Tx) -> tuple[Payment, bool]:
    return store.begin_refund(tx, ORDER, LATER)


def refunded(tx: Tx) -> None:
    store.finish_refund(tx, ORDER, LATER)


CAPTURED = answered(PaymentState.CAPTURED)
DECLINED = answered(PaymentState.DECLINED, "no")
REVERSED = answered(PaymentState.REFUNDED)

WAYS: Final[dict[PaymentState, list[Step]]] = {
    PaymentState.PENDING: [charge],
    PaymentState.CAPTURED: [charge, CAPTURED],
    PaymentState.DECLINED: [charge, DECLINED],
    PaymentState.REFUNDING: [charge, refund],
    PaymentState.REFUNDED: [refund],
}
"""A way into each state."""

MOVES: Final = [
    (PaymentState.PENDING, charge, PaymentState.PENDING),
    (PaymentState.PENDING, CAPTURED, PaymentState.CAPTURED),
    (PaymentState.PENDING, DECLINED, PaymentState.DECLINED),
    (PaymentState.PENDING, REVERSED, PaymentState.REFUNDED),
    (PaymentState.PENDING, refund, PaymentState.REFUNDING),
    (PaymentState.PENDING, refunded, PaymentState.PENDING),
    (PaymentState.CAPTURED, charge, PaymentState.CAPTURED),
    (PaymentState.CAPTURED, CAPTURED, PaymentState.CAPTURED),
    (PaymentState.CAPTURED, DECLINED, PaymentState.CAPTURED),
    (PaymentState.CAPTURED, REVERSED, PaymentState.CAPTURED),
    (PaymentState.CAPTURED, refund, PaymentState.REFUNDING),
    (PaymentState.CAPTURED, refunded, PaymentState.CAPTURED),
    (PaymentState.DECLINED, charge, PaymentState.DECLINED),
    (PaymentState.DECLINED, CAPTURED, PaymentState.DECLINED),
    (PaymentState.DECLINED, DECLINED, PaymentState.DECLINED),
    (PaymentState.DECLINED, REVERSED, PaymentState.DECLINED),
    (PaymentState.DECLINED, refund, PaymentState.DECLINED),
    (PaymentState.DECLINED, refunded, PaymentState.DECLINED),
    (PaymentState.REFUNDING, charge, PaymentState.REFUNDING),
    (PaymentState.REFUNDING, CAPTURED, PaymentState.REFUNDING),
    (PaymentState.REFUNDING, DECLINED, PaymentState.REFUNDING),
    (PaymentState.REFUNDING, REVERSED, PaymentState.REFUNDING),
    (PaymentState.REFUNDING, refund, PaymentState.REFUNDING),
    (PaymentState.REFUNDING, refunded, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, charge, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, CAPTURED, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, DECLINED, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, REVERSED, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, refund, PaymentState.REFUNDED),
    (PaymentState.REFUNDED, refunded, PaymentState.REFUNDED),
]


async def test_every_move_from_every_state(payments: Database) -> None:
    """Each step does in each state what the table says, and nothing else."""
    for start, step, end in MOVES:
        await payments.write(lambda tx: tx.execute("DELETE FROM payment"))
        for each in WAYS[start]:
            await payments.write(each)
        before = await payments.read(lambda tx: store.find(tx, ORDER))
        await payments.write(step)
        after = await payments.read(lambda tx: store.find(tx, ORDER))

        assert before is not None
        assert after is not None
        assert (before.state, after.state) == (start, end)
        if start is end:
            assert after == before
        else:
            assert after.updated_at == LATER


async def test_a_payment_keeps_what_was_asked_for(payments: Database) -> None:
    """The first charge of an order decides its id and amount; the last answer its reason."""
    first = await payments.write(charge)
    again = await payments.write(lambda tx: store.open_charge(tx, ORDER, OTHER, "other", LATER))
    declined = await payments.write(DECLINED)

    assert first == again
    assert (first.amount, first.updated_at) == (PRICE, NOW)
    assert isinstance(declined, Payment)
    assert (declined.payment_id, declined.decline_reason) == (first.payment_id, "no")


async def test_a_refund_that_comes_first_has_no_amount(payments: Database) -> None:
    """It leaves a payment that nothing was asked for and no work."""
    payment, begun = await payments.write(refund)

    assert (payment.state, payment.amount, begun) == (PaymentState.REFUNDED, None, False)


async def test_only_one_refund_begins(payments: Database) -> None:
    """Of refunds at the same moment one is told to do the work."""
    await payments.write(charge)
    began = await asyncio.gather(*(payments.write(refund) for _ in range(10)))

    assert sorted(begun for _, begun in began) == [False] * 9 + [True]


async def test_a_key_belongs_to_one_order(payments: Database) -> None:
    """A key that another order's payment holds opens no payment."""
    await payments.write(charge)
    opened = await payments.write(lambda tx: store.open_charge(tx, "other", PRICE, "key", NOW))

    assert opened is None
    assert await payments.read(lambda tx: store.find(tx, "other")) is None


async def test_charges_and_refunds_in_a_race_make_one_payment(payments: Database) -> None:
    """Whichever comes first, there is one row, and the refund is never forgotten."""
    for number in range(20):
        order = f"order {number}"
        await asyncio.gather(
            payments.write(lambda tx, o=order: store.open_charge(tx, o, PRICE, None, NOW)),  # type: ignore[misc]
            payments.write(lambda tx, o=order: store.begin_refund(tx, o, NOW)),  # type: ignore[misc]
        )
        payment = await payments.read(lambda tx, o=order: store.find(tx, o))  # type: ignore[misc]

        assert payment is not None
        assert payment.state in (PaymentState.REFUNDING, PaymentState.REFUNDED)


@pytest.mark.parametrize(
    ("state", "amount", "expected"),
    [
        (PaymentState.PENDING, PRICE, None),
        (PaymentState.CAPTURED, PRICE, None),
        (PaymentState.DECLINED, PRICE, Refusal.CARD_DECLINED),
        (PaymentState.REFUNDING, PRICE, Refusal.PAYMENT_REFUNDED),
        (PaymentState.REFUNDED, PRICE, Refusal.PAYMENT_REFUNDED),
        (PaymentState.PENDING, OTHER, Refusal.AMOUNT_CHANGED),
        (PaymentState.CAPTURED, OTHER, Refusal.AMOUNT_CHANGED),
        (PaymentState.DECLINED, OTHER, Refusal.AMOUNT_CHANGED),
        (PaymentState.REFUNDING, OTHER, Refusal.PAYMENT_REFUNDED),
        (PaymentState.REFUNDED, OTHER, Refusal.PAYMENT_REFUNDED),
    ],
)
def test_what_a_charge_is_told(
    state: PaymentState, amount: Money, expected: Refusal | None
) -> None:
    """A refunded order is refused whatever is asked; else the amount must be the first one."""
    assert refusal(Payment("id", ORDER, PRICE, state, "", NOW), amount) is expected


def test_a_refunded_order_without_a_charge_is_refused() -> None:
    """A refund that came first is the reason, not the amount that it does not have."""
    payment = Payment("id", ORDER, None, PaymentState.REFUNDED, "", NOW)

    assert refusal(payment, PRICE) is Refusal.PAYMENT_REFUNDED
