"""Puts customers, products and orders into the shop, and follows each order to its end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from accord.context import idempotency_key
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
from shop.orders.v1.orders_pb2 import CreateOrderRequest, OrderItem, StreamOrderUpdatesRequest
from shopctl.replay.clients import Clients, Retries, for_each
from shopctl.replay.model import Buyer, Fate, Plan, PlannedOrder, Ware
from shopctl.replay.progress import DRIVING, ENDED, Tally
from shopctl.replay.tpch import COUNTRY_CODES

PAUSE: Final = 0.1
"""Seconds before a stream that ended early, but without an error, is opened again."""

DECLINED_CARD: Final = "tok_declined"


def cents(amount: int) -> Money:
    """US cents."""
    return Money(minor_units=amount, currency_code="USD")


def address(buyer: Buyer) -> Address:
    """Where a customer lives. TPC-H knows no cities; the nation stands in."""
    return Address(
        name=buyer.name,
        line1=buyer.street,
        city=buyer.nation.title(),
        country_code=COUNTRY_CODES[buyer.nation],
    )


async def load(
    plan: Plan, clients: Clients, retries: Retries, tally: Tally, concurrency: int
) -> Mapping[int, str]:
    """Creates the customers and products of a plan; returns customer key -> customer id.

    Raises:
        CommandError: a service refused.
    """
    customer_ids: dict[int, str] = {}

    async def create(buyer: Buyer) -> None:
        request = CreateCustomerRequest(name=buyer.name, email=buyer.email, address=address(buyer))
        key = idempotency_key(f"{plan.run}/customer/{buyer.custkey}")
        answer = await retries.call(
            "CreateCustomer", lambda: clients.customers.CreateCustomer(request, metadata=key)
        )
        customer_ids[buyer.custkey] = answer.customer.customer_id
        tally.step()

    async def stock(ware: Ware) -> None:
        request = UpsertProductRequest(
            sku=ware.sku, name=ware.name, price=cents(ware.price), on_hand=ware.on_hand
        )
        await retries.call("UpsertProduct", lambda: clients.inventory.UpsertProduct(request))
        tally.step()

    tally.begin("creating customers", len(plan.buyers))
    await for_each(plan.buyers.values(), concurrency, create)
    tally.begin("stocking products", len(plan.wares))
    await for_each(plan.wares, concurrency, stock)
    return customer_ids


@dataclass(frozen=True, slots=True)
class Followed:
    """An order that has ended.

    Attributes:
        order_id: as the shop calls it.
        misnumbered: updates that did not have the number after that of the one before: gaps and
            duplicates.
    """

    order_id: str
    misnumbered: int


class Driver:
    """Drives the orders of a plan through the shop.

    Args:
        customer_ids: customer key -> id in the shop.
        card: token of the cards that are not meant to be declined.
    """

    def __init__(
        self,
        plan: Plan,
        customer_ids: Mapping[int, str],
        card: str,
        clients: Clients,
        retries: Retries,
        tally: Tally,
    ) -> None:
        self._plan = plan
        self._customer_ids = customer_ids
        self._card = card
        self._clients = clients
        self._retries = retries
        self._tally = tally

    async def drive(self, concurrency: int) -> Mapping[int, Followed]:
        """Sees all orders through, at most `concurrency` of them under way at a time.

        Returns number in the replay -> order, once all have ended.

        Raises:
            CommandError: a service refused.
        """
        followed: dict[int, Followed] = {}

        async def one(order: PlannedOrder) -> None:
            order_id = await self._place(order)
            followed[order.number] = Followed(order_id, await self._follow(order, order_id))
            self._tally.step()

        self._tally.begin(DRIVING, len(self._plan.orders))
        await for_each(self._plan.orders, concurrency, one)
        return followed

    async def _place(self, order: PlannedOrder) -> str:
        request = CreateOrderRequest(
            customer_id=self._customer_ids[order.custkey],
            items=[
                OrderItem(sku=line.sku, quantity=line.quantity, unit_price=cents(line.price))
                for line in order.lines
            ],
            card_token=DECLINED_CARD if order.fate is Fate.DECLINED else self._card,
            ship_to=address(self._plan.buyers[order.custkey]),
        )
        key = idempotency_key(f"{self._plan.run}/order/{order.number}")
        answer = await self._retries.call(
            "CreateOrder", lambda: self._clients.orders.CreateOrder(request, metadata=key)
        )
        self._tally.placed_one()
        return answer.order.order_id

    async def _follow(self, order: PlannedOrder, order_id: str) -> int:
        """Reads the updates of an order until it has ended, however often the stream breaks."""
        last = misnumbered = 0
        ended = False

        async def read() -> None:
            nonlocal last, misnumbered, ended
            request = StreamOrderUpdatesRequest(order_id=order_id, after_sequence=last)
            async for update in self._clients.orders.StreamOrderUpdates(request):
                misnumbered += update.sequence != last + 1
                last = update.sequence
                ended = update.status in ENDED
                self._tally.updated(order.number, update)

        while not ended:
            await self._retries.call("StreamOrderUpdates", read)
            if not ended:
                await asyncio.sleep(PAUSE)
        return misnumbered
