"""Reads the books: of every service, of the card processor and of the carrier."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc

from shop.accounting.v1.accounting_pb2 import (
    ACCOUNT_CARD_RECEIVABLE,
    ACCOUNT_CUSTOMER_DEPOSITS,
    ACCOUNT_REFUNDS,
    ACCOUNT_REVENUE,
    GetTrialBalanceRequest,
    ListTransactionsRequest,
)
from shop.inventory.v1.inventory_pb2 import ListStockRequest
from shop.notifications.v1.notifications_pb2 import (
    NOTIFICATION_STATE_SENT,
    ListNotificationsRequest,
    Notification,
)
from shop.orders.v1.orders_pb2 import GetOrderRequest, ListOrdersRequest
from shop.payments.v1.payments_pb2 import (
    PAYMENT_STATE_CAPTURED,
    PAYMENT_STATE_PENDING,
    PAYMENT_STATE_REFUNDING,
    GetPaymentRequest,
)
from shop.sandbox.v1.sandbox_pb2 import (
    ENTRY_KIND_BOOKED,
    ENTRY_KIND_CANCELLED,
    ENTRY_KIND_CAPTURED,
    ENTRY_KIND_REVERSED,
    ReadLedgerRequest,
    ReadLedgerResponse,
)
from shop.shipping.v1.shipping_pb2 import SHIPMENT_STATE_BOOKED, GetShipmentRequest
from shopctl.replay.clients import Clients, RefusedError
from shopctl.replay.driver import Followed
from shopctl.replay.model import Books, OrderBooks, Stock
from shopctl.replay.tpch import sku_prefix

T = TypeVar("T")

PAGE: Final = 500
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0

LEDGER_SECONDS: Final = 120.0
"""How long the events of payments and orders may be on their way to the ledger."""


@dataclass(frozen=True, slots=True)
class LedgerBalance:
    """What the outside world did for one order. Money in US cents."""

    captures: int = 0
    money: int = 0
    bookings: int = 0
    units: int = 0


def balances(entries: Iterable[ReadLedgerResponse]) -> Mapping[str, LedgerBalance]:
    """Sums up a ledger: reference -> balance."""
    times: Counter[tuple[str, int]] = Counter()
    money: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for entry in entries:
        sign = -1 if entry.kind in (ENTRY_KIND_REVERSED, ENTRY_KIND_CANCELLED) else 1
        times[entry.reference, entry.kind] += 1
        money[entry.reference] += sign * entry.amount.minor_units
        units[entry.reference] += sign * entry.units
    return {
        reference: LedgerBalance(
            captures=times[reference, ENTRY_KIND_CAPTURED],
            money=money[reference],
            bookings=times[reference, ENTRY_KIND_BOOKED],
            units=units[reference],
        )
        for reference in {reference for reference, _ in times}
    }


@dataclass(frozen=True, slots=True)
class BookReader:
    """Reads all that concerns the orders of one replay: number -> order; all have ended."""

    orders: Mapping[int, Followed]
    clients: Clients

    async def wait_for_mail(self, seconds: float) -> None:
        """Mail follows the end of an order; waits until each has one, for `seconds` at most."""

        async def wait(order: Followed) -> None:
            pause = FIRST_PAUSE
            while not any(
                mail.state == NOTIFICATION_STATE_SENT for mail in await self._mails(order.order_id)
            ):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            self.clients.tally.step()

        self.clients.tally.begin("waiting for mail", len(self.orders))
        # The reconciliation names the orders that still have none.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.clients.for_each(self.orders.values(), wait)

    async def read(self, run: str, customer_ids: Iterable[str]) -> Books:
        """Reads everything once.

        Args:
            run: whose products.
            customer_ids: whose orders.

        Raises:
            CommandError: a service refused.
        """
        self.clients.tally.begin("reading the books", len(self.orders))

        async def read_ledger() -> list[ReadLedgerResponse]:
            entries = self.clients.sandbox.ReadLedger(ReadLedgerRequest())
            return [entry async for entry in entries]

        ledger = balances(await self.clients.retries.call("ReadLedger", read_ledger))
        books: dict[int, OrderBooks] = {}
        deadline = time.monotonic() + LEDGER_SECONDS

        async def read_one(entry: tuple[int, Followed]) -> None:
            number, order = entry
            balance = ledger.get(order.order_id, LedgerBalance())
            books[number] = await self._order(order, balance, deadline)
            self.clients.tally.step()

        await self.clients.for_each(self.orders.items(), read_one)
        balance = await self.clients.retries.call(
            "GetTrialBalance",
            lambda: self.clients.accounting.GetTrialBalance(GetTrialBalanceRequest()),
        )
        sums = Counter[str]()
        for each in balance.balances:
            sums[each.currency_code] += each.debit - each.credit
        return Books(
            orders=books,
            stock=await self._stock(run),
            strays=await self._strays(customer_ids),
            unbalanced=sum(map(abs, sums.values())),
        )

    async def _order(self, order: Followed, ledger: LedgerBalance, deadline: float) -> OrderBooks:
        clients, order_id = self.clients, order.order_id
        found = await self.clients.retries.call(
            "GetOrder", lambda: clients.orders.GetOrder(GetOrderRequest(order_id=order_id))
        )
        payment = await self._unless_absent(
            "GetPayment",
            lambda: clients.payments.GetPayment(GetPaymentRequest(order_id=order_id)),
        )
        shipment = await self._unless_absent(
            "GetShipment",
            lambda: clients.shipping.GetShipment(GetShipmentRequest(order_id=order_id)),
        )
        mails = await self._mails(order_id)
        captured = shipped = 0
        settled = True
        if payment is not None:
            state = payment.payment.state
            settled = state not in (PAYMENT_STATE_PENDING, PAYMENT_STATE_REFUNDING)
            if state == PAYMENT_STATE_CAPTURED:
                captured = payment.payment.amount.minor_units
        if shipment is not None and shipment.shipment.state == SHIPMENT_STATE_BOOKED:
            shipped = shipment.shipment.units
        accounts = await self._ledger(order_id, captured, deadline)
        return OrderBooks(
            order_id=order_id,
            status=found.order.status,
            reason=found.order.failure.reason,
            total=found.order.total.minor_units,
            captured=captured,
            settled=settled,
            captures=ledger.captures,
            processor=ledger.money,
            shipped=shipped,
            bookings=ledger.bookings,
            carrier=ledger.units,
            receivable=accounts[ACCOUNT_CARD_RECEIVABLE],
            deposits=-accounts[ACCOUNT_CUSTOMER_DEPOSITS],
            income=-accounts[ACCOUNT_REVENUE] - accounts[ACCOUNT_REFUNDS],
            mails=len(mails),
            mails_sent=sum(mail.state == NOTIFICATION_STATE_SENT for mail in mails),
            misnumbered=order.misnumbered,
        )

    async def _ledger(self, order_id: str, captured: int, deadline: float) -> Counter[int]:
        """Debits less credits of an order that has ended: account -> US cents.

        Waits until it has come to rest, or until a deadline: the reconciliation tells.
        """
        request = ListTransactionsRequest(order_id=order_id, page_size=PAGE)
        pause = FIRST_PAUSE
        while True:
            answer = await self.clients.retries.call(
                "ListTransactions", lambda: self.clients.accounting.ListTransactions(request)
            )
            sums = Counter[int]()
            for entry in (entry for each in answer.transactions for entry in each.entries):
                sums[entry.account] += entry.debit - entry.credit
            rests = sums[ACCOUNT_CARD_RECEIVABLE] == captured
            if (rests and not sums[ACCOUNT_CUSTOMER_DEPOSITS]) or time.monotonic() > deadline:
                return sums
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _mails(self, order_id: str) -> Sequence[Notification]:
        request = ListNotificationsRequest(order_id=order_id, page_size=PAGE)
        answer = await self.clients.retries.call(
            "ListNotifications", lambda: self.clients.notifications.ListNotifications(request)
        )
        return answer.notifications

    async def _stock(self, run: str) -> Mapping[str, Stock]:
        """Stock of the run's products. They lie side by side, as the stream is ordered by SKU."""
        prefix = sku_prefix(run)

        async def read() -> dict[str, Stock]:
            stock = {}
            call = self.clients.inventory.ListStock(ListStockRequest(after_sku=prefix))
            async for answer in call:
                product = answer.product
                if not product.sku.startswith(prefix):
                    call.cancel()
                    break
                stock[product.sku] = Stock(product.on_hand, product.reserved)
            return stock

        return await self.clients.retries.call("ListStock", read)

    async def _strays(self, customer_ids: Iterable[str]) -> Sequence[str]:
        known = {order.order_id for order in self.orders.values()}
        strays: list[str] = []

        async def read(customer_id: str) -> None:
            request = ListOrdersRequest(customer_id=customer_id, page_size=PAGE)
            answer = await self.clients.retries.call(
                "ListOrders", lambda: self.clients.orders.ListOrders(request)
            )
            strays.extend(o.order_id for o in answer.orders if o.order_id not in known)

        await self.clients.for_each(customer_ids, read)
        return strays

    async def _unless_absent(self, method: str, attempt: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await self.clients.retries.call(method, attempt)
        except RefusedError as refused:
            if refused.failure.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise
