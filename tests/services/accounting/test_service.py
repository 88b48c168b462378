"""The books of a real shop: they balance, and agree with orders, payments and the processor."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import accord
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime
from shop.accounting.v1 import accounting_pb2 as pb
from shop.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2 as events
from shop.payments.v1.events_pb2 import PaymentCaptured
from tests.services.orders.books import ledger as processor
from tests.services.orders.books import updates
from tests.services.sandbox.world import running_process
from tests.support.nats import nats_server
from tests.support.shop import Shop, order_request, running_shop
from tests.support.wait import until

PARTS = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A shop without its accounting, and a broker."""
    async with nats_server() as broker:
        monkeypatch.setenv("NATS_URL", broker.url)
        async with running_shop(tmp_path, *PARTS, nats_url=broker.url) as shop:
            await shop.product("tea", on_hand=1000)
            yield shop


@pytest.fixture
def stub(shop: Shop) -> AccountingServiceStub:
    """Accounting, through accord's interceptors."""
    return AccountingServiceStub(shop.channel("accounting"))


async def order(shop: Shop, customer: str, **how: str) -> str:
    """Place an order and see it to its end."""
    request = order_request(customer, {"tea": 2}, **how)  # type: ignore[arg-type]
    placed = await shop.orders.CreateOrder(request, metadata=accord.idempotency_key(uuid7()))
    await updates(shop, placed.order.order_id)
    return placed.order.order_id


async def balances(stub: AccountingServiceStub) -> Counter[int]:
    """Account -> debits less credits."""
    found = await stub.GetTrialBalance(pb.GetTrialBalanceRequest())
    assert found.balanced
    return Counter({each.account: each.debit - each.credit for each in found.balances})


async def differences(stub: AccountingServiceStub) -> list[pb.Difference]:
    """All that the reconciliation finds, page by page."""
    found: list[pb.Difference] = []
    request = pb.ReconcileRequest(page_size=2)
    while True:
        page = await stub.Reconcile(request)
        found += page.differences
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_the_books_of_a_shop(shop: Shop, stub: AccountingServiceStub) -> None:
    """Confirmed, declined and refunded orders; accounting killed between them: all agrees."""
    customer = await shop.customer()
    placed = []
    for _ in range(3):
        async with running_process("accounting", shop.home, shop.offset) as process:
            await shop.channel("accounting").channel_ready()
            placed.append(await order(shop, customer))
            process.kill()
            await process.wait()
        # Nobody keeps the books while these come to their ends.
        placed += [
            await order(shop, customer),
            await order(shop, customer, card="tok_declined"),
            await order(shop, customer, country="AQ"),
        ]
    async with running_process("accounting", shop.home, shop.offset):
        await shop.channel("accounting").channel_ready()

        async def agreed() -> bool:
            return not await differences(stub)

        await until(agreed, "the books to agree", seconds=60)
        held = sum([(await processor(shop, order_id)).money for order_id in placed])
        assert held == 6 * 998
        assert await balances(stub) == {
            pb.ACCOUNT_CARD_RECEIVABLE: held,
            pb.ACCOUNT_CUSTOMER_DEPOSITS: 0,
            pb.ACCOUNT_REVENUE: -held,
        }
        first = await stub.ListTransactions(pb.ListTransactionsRequest(order_id=placed[0]))
        kinds = {each.kind for each in first.transactions}
        assert kinds == {pb.TRANSACTION_KIND_CAPTURED, pb.TRANSACTION_KIND_EARNED}
        account = pb.GetAccountRequest(account=pb.ACCOUNT_REVENUE)
        (revenue,) = (await stub.GetAccount(account)).balances
        assert (revenue.type, revenue.credit) == (pb.ACCOUNT_TYPE_INCOME, held)


async def publish(runtime: Runtime, *messages: events.OrderPaid | PaymentCaptured) -> None:
    """Write events into a service's record, without what they say having happened."""
    for message in messages:
        await runtime.database.write(
            lambda tx: runtime.outbox.append(tx, message, sequence=1)  # noqa: B023
        )


async def test_differences_are_listed(shop: Shop, stub: AccountingServiceStub) -> None:
    """Money that only one of the books knows of is named; an event that always fails holds up none.

    The one that fails has an amount of which there is no opposite in 64 bits.
    """
    price = Money(minor_units=499, currency_code="EUR")
    lowest = Money(minor_units=-(2**63), currency_code="EUR")
    await publish(shop.runtimes["payments"], PaymentCaptured(order_id=uuid7(), amount=lowest))
    stranger, believed = uuid7(), uuid7()
    await publish(shop.runtimes["payments"], PaymentCaptured(order_id=stranger, amount=price))
    await publish(shop.runtimes["orders"], events.OrderPaid(order_id=believed, amount=price))
    async with running_process("accounting", shop.home, shop.offset):
        await shop.channel("accounting").channel_ready()
        good = await order(shop, await shop.customer())

        async def posted() -> bool:
            found = await balances(stub)
            return found[pb.ACCOUNT_CARD_RECEIVABLE] == 998 + 2 * 499

        await until(posted, "all to be posted")

        async def earned() -> bool:
            return (await balances(stub))[pb.ACCOUNT_REVENUE] == -998

        await until(earned, "the good order to be earned")
        found = await differences(stub)
        assert {(each.order_id, each.kind) for each in found} >= {
            (stranger, pb.DIFFERENCE_KIND_UNKNOWN_ORDER),
            (stranger, pb.DIFFERENCE_KIND_RECEIVABLE),
        }
        assert good not in {each.order_id for each in found}
