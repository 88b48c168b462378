"""No interleaving and no crash charges an order twice or lets our books lie."""

from pathlib import Path
from typing import Any, Final

import pytest

from accord_runtime.database import Database
from accord_runtime.events.notifier import Notifier
from accord_runtime.events.record import RecordReader
from accord_runtime.work.executor import Executor
from services.payments import store
from services.payments.domain import CardProcessor, Outcome
from services.payments.processor import SandboxProcessor
from services.payments.servicer import Payments
from shop.common.v1.money_pb2 import Money
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.events_pb2 import PaymentCaptured, PaymentRefunded
from tests.chaos.scale import FULL
from tests.services.payments.client import PRICE, TAKEN, TAKEN_AND_BACK
from tests.services.sandbox.interleaving import Gate, Interleaving, Standing, explore, running_bench
from tests.support.events import OUTBOX, events_of

NO_CONTEXT: Final[Any] = None
"""The servicer needs none."""


class GatedProcessor:
    """The real processor, behind a gate."""

    def __init__(self, inner: CardProcessor, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def capture(self, key: str, reference: str, amount: Money, card_token: str) -> Outcome:
        return await self._gate.call(
            lambda: self._inner.capture(key, reference, amount, card_token)
        )

    async def reverse(self, key: str, reference: str) -> Money | None:
        return await self._gate.call(lambda: self._inner.reverse(key, reference))


class ChargesAndRefunds(Interleaving):
    """Charges and refunds of some orders, in every order of events."""

    variants = ["tok_good", "tok_a", "tok_b", "tok_declined"]  # noqa: RUF012
    table = "payment"

    def build(self, database: Database, executor: Executor) -> None:
        processor = GatedProcessor(SandboxProcessor(self.bench.channel), self.gate)
        orders = OrderServiceStub(self.bench.channel)
        record = RecordReader(database, Notifier())
        self.payments = Payments(database, executor, processor, orders, OUTBOX, record)

    async def perform(self, order: str, variant: str) -> str:
        request = pb.ChargeRequest(order_id=order, amount=PRICE, card_token=variant)
        return (await self.payments.Charge(request, NO_CONTEXT)).payment.payment_id

    async def undo(self, order: str) -> bool:
        refund = await self.payments.Refund(pb.RefundRequest(order_id=order), NO_CONTEXT)
        assert refund.payment.state in (pb.PAYMENT_STATE_REFUNDED, pb.PAYMENT_STATE_DECLINED)
        return True

    async def state(self, order: str) -> "pb.PaymentState.ValueType | None":
        payment = await self.bench.database.read(lambda tx: store.find(tx, order))
        return payment.state if payment else None

    async def standing(self, order: str) -> Standing:
        return {
            None: Standing.OPEN,
            pb.PAYMENT_STATE_PENDING: Standing.OPEN,
            pb.PAYMENT_STATE_CAPTURED: Standing.DONE,
            pb.PAYMENT_STATE_DECLINED: Standing.NOT_DONE,
            pb.PAYMENT_STATE_REFUNDING: Standing.UNDOING,
            pb.PAYMENT_STATE_REFUNDED: Standing.NOT_DONE,
        }[await self.state(order)]

    async def check_books(self, order: str, variant: str, *, undone: bool | None) -> None:
        state, kinds = await self.state(order), await self.bench.world.kinds(order)

        if state == pb.PAYMENT_STATE_CAPTURED:
            assert kinds == TAKEN
        elif state == pb.PAYMENT_STATE_REFUNDED:
            assert not kinds or kinds == TAKEN_AND_BACK
        else:
            assert state in (None, pb.PAYMENT_STATE_DECLINED)
            assert not kinds
        money = 0
        for event in await events_of(self.bench.database, order):
            if isinstance(event, PaymentCaptured):
                money += event.amount.minor_units
            elif isinstance(event, PaymentRefunded):
                money -= event.amount.minor_units
        assert money == (PRICE.minor_units if kinds == TAKEN else 0)
        if undone:
            assert state in (pb.PAYMENT_STATE_REFUNDED, pb.PAYMENT_STATE_DECLINED)
        elif variant:
            good = variant != "tok_declined"
            assert state == (pb.PAYMENT_STATE_CAPTURED if good else pb.PAYMENT_STATE_DECLINED)


@pytest.mark.slow
def test_the_books_agree_with_the_ledger(tmp_path: Path) -> None:
    """After any interleaving, failure and crash, money was taken once and is where we say."""
    with running_bench(tmp_path, "", "payments", store.MIGRATIONS) as bench:
        explore(ChargesAndRefunds, bench, examples=200 if FULL else 60)


@pytest.mark.slow
def test_the_books_agree_with_the_ledger_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The same on the other backend, shorter: gates lie between transactions, not inside them."""
    with running_bench(tmp_path, postgres_url, "payments_gated", store.MIGRATIONS) as bench:
        explore(ChargesAndRefunds, bench, examples=30 if FULL else 10)
