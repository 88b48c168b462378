"""Every transition of a payment, on both backends."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import pytest

from accord.errors import InvalidArgument
from accord_runtime.database import Database, Tx
from accord_runtime.database.migrations import migrate
from accord_runtime.events import outbox
from accord_runtime.grpc.types import timestamp
from services.payments import store
from services.payments.domain import Outcome, refusal
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.events_pb2 import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.payments.v1.payments_pb2 import Payment
from tests.support.events import OUTBOX, events_of

PRICE: Final = Money(minor_units=1999, currency_code="EUR")
OTHER: Final = Money(minor_units=1, currency_code="EUR")
ORDER: Final = "01a1fd97-2452-71fd-bada-e5c976259c7d"
ANOTHER: Final = "01a1fd9b-e08f-7281-b6f1-782782908671"
NOW: Final = 1.0
LATER: Final = 2.0

Step = Callable[[Tx], object]


@pytest.fixture
async def payments(database: Database) -> Database:
    """An empty payments database, on each backend in turn."""
    await migrate(database, "runtime", [*outbox.MIGRATIONS, *outbox.LATER_MIGRATIONS])
    await migrate(database, "payments", store.MIGRATIONS)
    return database


def charge(tx: Tx) -> Payment:
    return store.open_charge(tx, ORDER, PRICE, "key", NOW)


def found(tx: Tx) -> Payment:
    payment = store.find(tx, ORDER)
    assert payment is not None
    return payment


def answered(state: "pb.PaymentState.ValueType", reason: str = "") -> Step:
    def step(tx: Tx) -> Payment:
        store.settle(tx, OUTBOX, found(tx), Outcome(state, reason), LATER)
        return found(tx)

    return step


def refund(tx: Tx) -> tuple[Payment, bool]:
    begun = store.begin_refund(tx, ORDER, LATER)
    return found(tx), begun


def given_back(tx: Tx) -> None:
    store.finish_refund(tx, OUTBOX, ORDER, PRICE, LATER)


def refunded(tx: Tx) -> None:
    store.finish_refund(tx, OUTBOX, ORDER, None, LATER)


CAPTURED = answered(pb.PAYMENT_STATE_CAPTURED)
DECLINED = answered(pb.PAYMENT_STATE_DECLINED, "no")
REVERSED = answered(pb.PAYMENT_STATE_REFUNDED)

WAYS: Final[dict["pb.PaymentState.ValueType", list[Step]]] = {
    pb.PAYMENT_STATE_PENDING: [charge],
    pb.PAYMENT_STATE_CAPTURED: [charge, CAPTURED],
    pb.PAYMENT_STATE_DECLINED: [charge, DECLINED],
    pb.PAYMENT_STATE_REFUNDING: [charge, refund],
    pb.PAYMENT_STATE_REFUNDED: [refund, refunded],
}
"""A way into each state."""

MOVES: Final = [
    (pb.PAYMENT_STATE_PENDING, charge, pb.PAYMENT_STATE_PENDING),
    (pb.PAYMENT_STATE_PENDING, CAPTURED, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_PENDING, DECLINED, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_PENDING, REVERSED, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_PENDING, refund, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_PENDING, refunded, pb.PAYMENT_STATE_PENDING),
    (pb.PAYMENT_STATE_CAPTURED, charge, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_CAPTURED, CAPTURED, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_CAPTURED, DECLINED, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_CAPTURED, REVERSED, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_CAPTURED, refund, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_CAPTURED, refunded, pb.PAYMENT_STATE_CAPTURED),
    (pb.PAYMENT_STATE_DECLINED, charge, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_DECLINED, CAPTURED, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_DECLINED, DECLINED, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_DECLINED, REVERSED, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_DECLINED, refund, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_DECLINED, refunded, pb.PAYMENT_STATE_DECLINED),
    (pb.PAYMENT_STATE_REFUNDING, charge, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_REFUNDING, CAPTURED, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_REFUNDING, DECLINED, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_REFUNDING, REVERSED, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_REFUNDING, refund, pb.PAYMENT_STATE_REFUNDING),
    (pb.PAYMENT_STATE_REFUNDING, refunded, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, charge, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, CAPTURED, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, DECLINED, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, REVERSED, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, refund, pb.PAYMENT_STATE_REFUNDED),
    (pb.PAYMENT_STATE_REFUNDED, refunded, pb.PAYMENT_STATE_REFUNDED),
]


EVENTS: Final = {
    pb.PAYMENT_STATE_CAPTURED: PaymentCaptured,
    pb.PAYMENT_STATE_DECLINED: PaymentDeclined,
    pb.PAYMENT_STATE_REFUNDED: PaymentRefunded,
}
"""What is published when a state is reached, and only then."""


def forget(tx: Tx) -> None:
    """Put the database back to before the order."""
    tx.execute("DELETE FROM payment")
    tx.execute("DELETE FROM events")


async def test_every_move_from_every_state(payments: Database) -> None:
    """Each step does in each state what the table says, and nothing else."""
    for start, step, end in MOVES:
        await payments.write(forget)
        for each in WAYS[start]:
            await payments.write(each)
        before = await payments.read(lambda tx: store.find(tx, ORDER))
        said = len(await events_of(payments, ORDER))
        await payments.write(step)
        after = await payments.read(lambda tx: store.find(tx, ORDER))

        assert before is not None
        assert after is not None
        assert (before.state, after.state) == (start, end)
        news = (await events_of(payments, ORDER))[said:]
        kept = start == end or end == pb.PAYMENT_STATE_REFUNDING
        assert [type(event) for event in news] == ([] if kept else [EVENTS[end]])
        if start == end:
            assert after == before
        else:
            assert after.updated_at == timestamp(LATER)


@pytest.mark.parametrize(
    "way",
    [
        [charge, CAPTURED, refund, given_back],  # the usual one
        [charge, refund, given_back],  # nobody knew that the money had been taken
        [charge, CAPTURED, lambda tx: tx.execute("DELETE FROM events"), refund, given_back],
    ],
    ids=["known", "unknown", "older"],
)
async def test_what_was_given_back_was_taken(payments: Database, way: list[Step]) -> None:
    """Whoever adds the published amounts up gets what the processor has of the order: nothing."""
    for step in way:
        await payments.write(step)
    said = {"order_id": ORDER, "payment_id": (await payments.read(found)).payment_id}
    assert await events_of(payments, ORDER) == [
        PaymentCaptured(amount=PRICE, fulfilment=FULFILMENT_ORCHESTRATED, **said),
        PaymentRefunded(amount=PRICE, fulfilment=FULFILMENT_ORCHESTRATED, **said),
    ]


async def test_a_decline_says_why(payments: Database) -> None:
    """Reason and detail are those that the caller of the charge is told."""
    for step in (charge, DECLINED):
        await payments.write(step)
    [said] = await events_of(payments, ORDER)
    assert isinstance(said, PaymentDeclined)
    assert (said.reason, said.detail) == ("CARD_DECLINED", "no")


async def test_a_payment_keeps_what_was_asked_for(payments: Database) -> None:
    """The first charge of an order decides its id and amount; the last answer its reason."""
    first = await payments.write(charge)
    again = await payments.write(lambda tx: store.open_charge(tx, ORDER, OTHER, "other", LATER))
    declined = await payments.write(DECLINED)

    assert first == again
    assert (first.amount, first.updated_at) == (PRICE, timestamp(NOW))
    assert isinstance(declined, Payment)
    assert (declined.payment_id, declined.decline_reason) == (first.payment_id, "no")


async def test_a_restored_database_asks_under_the_same_id(payments: Database) -> None:
    """A charge whose row was lost is made again under the id that the processor knows."""
    first = await payments.write(charge)
    await payments.write(lambda tx: tx.execute("DELETE FROM payment"))
    again = await payments.write(charge)

    assert again.payment_id == first.payment_id


async def test_a_refund_of_what_is_not_known_here_is_begun(payments: Database) -> None:
    """It asks under the id of the charge that was lost, if there was one, and has no amount."""
    charged = await payments.write(charge)
    await payments.write(lambda tx: tx.execute("DELETE FROM payment"))
    payment, begun = await payments.write(refund)

    assert (payment.payment_id, payment.state, payment.HasField("amount"), begun) == (
        charged.payment_id,
        pb.PAYMENT_STATE_REFUNDING,
        False,
        True,
    )


async def test_only_one_refund_begins(payments: Database) -> None:
    """Of refunds at the same moment one is told to do the work."""
    await payments.write(charge)
    began = await asyncio.gather(*(payments.write(refund) for _ in range(10)))

    assert sorted(begun for _, begun in began) == [False] * 9 + [True]


async def test_a_key_belongs_to_one_order(payments: Database) -> None:
    """A key that another order's payment holds opens no payment."""
    await payments.write(charge)

    with pytest.raises(InvalidArgument) as refused:
        await payments.write(lambda tx: store.open_charge(tx, ANOTHER, PRICE, "key", NOW))

    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await payments.read(lambda tx: store.find(tx, ANOTHER)) is None


async def test_charges_and_refunds_in_a_race_make_one_payment(payments: Database) -> None:
    """Whichever comes first, there is one row, and the refund is never forgotten."""
    for number in range(20):
        order = str(UUID(int=number))
        await asyncio.gather(
            payments.write(lambda tx, o=order: store.open_charge(tx, o, PRICE, None, NOW)),  # type: ignore[misc]
            payments.write(lambda tx, o=order: store.begin_refund(tx, o, NOW)),  # type: ignore[misc]
        )
        payment = await payments.read(lambda tx, o=order: store.find(tx, o))  # type: ignore[misc]

        assert payment is not None
        assert payment.state == pb.PAYMENT_STATE_REFUNDING


@pytest.mark.parametrize(
    ("state", "amount", "expected"),
    [
        (pb.PAYMENT_STATE_PENDING, PRICE, None),
        (pb.PAYMENT_STATE_CAPTURED, PRICE, None),
        (pb.PAYMENT_STATE_DECLINED, PRICE, "CARD_DECLINED"),
        (pb.PAYMENT_STATE_REFUNDING, PRICE, "PAYMENT_REFUNDED"),
        (pb.PAYMENT_STATE_REFUNDED, PRICE, "PAYMENT_REFUNDED"),
        (pb.PAYMENT_STATE_PENDING, OTHER, "AMOUNT_CHANGED"),
        (pb.PAYMENT_STATE_CAPTURED, OTHER, "AMOUNT_CHANGED"),
        (pb.PAYMENT_STATE_DECLINED, OTHER, "AMOUNT_CHANGED"),
        (pb.PAYMENT_STATE_REFUNDING, OTHER, "PAYMENT_REFUNDED"),
        (pb.PAYMENT_STATE_REFUNDED, OTHER, "PAYMENT_REFUNDED"),
    ],
)
def test_what_a_charge_is_told(
    state: "pb.PaymentState.ValueType", amount: Money, expected: str | None
) -> None:
    """A refunded order is refused whatever is asked; else the amount must be the first one."""
    refused = refusal(Payment(order_id=ORDER, amount=PRICE, state=state), amount)
    assert (refused and refused.reason) == expected


def test_a_refunded_order_without_a_charge_is_refused() -> None:
    """A refund that came first is the reason, not the amount that it does not have."""
    payment = Payment(order_id=ORDER, state=pb.PAYMENT_STATE_REFUNDED)

    refused = refusal(payment, PRICE)
    assert refused is not None
    assert refused.reason == "PAYMENT_REFUNDED"
