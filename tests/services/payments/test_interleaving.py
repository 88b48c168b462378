"""No interleaving and no crash charges an order twice or lets our books lie."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from services.payments import store
from services.payments.domain import CardProcessor, Outcome, PaymentState
from services.payments.processor import SandboxProcessor
from services.payments.servicer import Payments
from services.runtime.database import Database
from services.runtime.executor import Executor
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.services.sandbox.interleaving import Bench, Gate, Interleaving, explore
from tests.services.sandbox.world import running_world

PRICE = Money(minor_units=1999, currency_code="EUR")
TAKEN = [outside.ENTRY_KIND_CAPTURED]
TAKEN_AND_BACK = [outside.ENTRY_KIND_CAPTURED, outside.ENTRY_KIND_REVERSED]


class GatedProcessor:
    """The real processor, behind a gate."""

    def __init__(self, inner: CardProcessor, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def capture(self, key: str, reference: str, amount: Money, card_token: str) -> Outcome:
        return await self._gate.call(
            lambda: self._inner.capture(key, reference, amount, card_token)
        )

    async def reverse(self, key: str, reference: str) -> None:
        await self._gate.call(lambda: self._inner.reverse(key, reference))


class ChargesAndRefunds(Interleaving):
    """Charges and refunds of two orders, in every order of events."""

    variants = ["tok_good", "tok_declined"]  # noqa: RUF012

    def build(self, gate: Gate, database: Database, executor: Executor) -> None:
        processor = GatedProcessor(SandboxProcessor(self.bench.channel), gate)
        self.payments = Payments(database, executor, processor, lambda: self.now)

    async def perform(self, order: str, variant: str) -> str:
        request = pb.ChargeRequest(order_id=order, amount=PRICE, card_token=variant)
        return (await self.payments.Charge(request, None)).payment.payment_id

    async def undo(self, order: str) -> None:
        refund = await self.payments.Refund(pb.RefundRequest(order_id=order), None)
        assert refund.payment.state in (pb.PAYMENT_STATE_REFUNDED, pb.PAYMENT_STATE_DECLINED)

    async def state(self, order: str) -> PaymentState | None:
        payment = await self.bench.database.read(lambda tx: store.find(tx, order))
        return payment.state if payment else None

    async def is_unfinished(self, order: str) -> bool:
        return await self.state(order) is PaymentState.REFUNDING

    async def check_books(self, order: str, variant: str, *, undone: bool) -> None:
        state, kinds = await self.state(order), await self.bench.world.kinds(order)

        assert state is not PaymentState.PENDING
        assert (
            kinds
            in {
                None: [[]],
                PaymentState.CAPTURED: [TAKEN],
                PaymentState.DECLINED: [[]],
                PaymentState.REFUNDED: [[], TAKEN_AND_BACK],
            }[state]
        )
        if undone:
            assert state in (PaymentState.REFUNDED, PaymentState.DECLINED)
        elif variant:
            good = variant == "tok_good"
            assert state is (PaymentState.CAPTURED if good else PaymentState.DECLINED)


@pytest.fixture(params=["sqlite", "postgres"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A sandbox and a payments database that all examples share, on each backend in turn."""
    home = tmp_path_factory.mktemp("payments")
    url = f"sqlite:///{home}/books.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")

    async def enter(stack: AsyncExitStack) -> Bench:
        shop, world = await stack.enter_async_context(running_world(home))
        books = await Bench.open_books(url, "payments_machine", store.MIGRATIONS)
        stack.push_async_callback(books.close)
        return Bench(runner, world, shop.channel("sandbox"), books)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner.run(enter(stack))
        runner.run(stack.aclose())


def test_the_books_agree_with_the_ledger(bench: Bench) -> None:
    """After any interleaving, failure and crash, money was taken once and is where we say."""
    explore(ChargesAndRefunds, bench)
