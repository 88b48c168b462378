"""Puts customers, products and orders into the shop, and follows each order to its end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from accord.context import idempotency_key
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED, Fulfilment
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
from shop.orders.v1.orders_pb2 import CreateOrderRequest, StreamOrderUpdatesRequest
from shopctl.replay.clients import Clients
from shopctl.replay.model import Fate, Plan, PlannedOrder
from shopctl.replay.progress import DRIVING, ENDED

PAUSE: Final = 0.1
"""Seconds before a stream that ended early, but without an error, is opened again."""

DECLINED_CARD: Final = "tok_declined"


async def load(plan: Plan, clients: Clients) -> Mapping[int, str]:
    """Creates the customers and products of a plan; returns customer key -> customer id.

    Raises:
        CommandError: a service refused.
    """
    customer_ids: dict[int, str] = {}

    async def create(buyer: tuple[int, CreateCustomerRequest]) -> None:
        custkey, request = buyer
        key = idempotency_key(f"{plan.run}/customer/{custkey}")
        answer = await clients.retries.call(
            "CreateCustomer", lambda: clients.customers.CreateCustomer(request, metadata=key)
        )
        customer_ids[custkey] = answer.customer.customer_id
        clients.tally.step()

    async def stock(product: UpsertProductRequest) -> None:
        await clients.retries.call(
            "UpsertProduct", lambda: clients.inventory.UpsertProduct(product)
        )
        clients.tally.step()

    clients.tally.begin("creating customers", len(plan.buyers))
    await clients.for_each(plan.buyers.items(), create)
    clients.tally.begin("stocking products", len(plan.products))
    await clients.for_each(plan.products, stock)
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


@dataclass(frozen=True, slots=True)
class Driver:
    """Drives the orders of a plan through the shop.

    Attributes:
        customer_ids: customer key -> id in the shop.
        card: token of the cards that are not meant to be declined.
        fulfilment: how the orders are seen through.
    """

    plan: Plan
    customer_ids: Mapping[int, str]
    card: str
    clients: Clients
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED

    async def drive(self) -> Mapping[int, Followed]:
        """Sees all orders through, as many of them under way at a time as there may be calls.

        Returns number in the replay -> order, once all have ended.

        Raises:
            CommandError: a service refused.
        """
        followed: dict[int, Followed] = {}

        async def one(order: PlannedOrder) -> None:
            order_id = await self._place(order)
            followed[order.number] = Followed(order_id, await self._follow(order, order_id))
            self.clients.tally.step()

        self.clients.tally.begin(DRIVING, len(self.plan.orders))
        await self.clients.for_each(self.plan.orders, one)
        return followed

    async def _place(self, order: PlannedOrder) -> str:
        request = CreateOrderRequest(
            customer_id=self.customer_ids[order.custkey],
            items=order.lines,
            card_token=DECLINED_CARD if order.fate is Fate.DECLINED else self.card,
            ship_to=self.plan.buyers[order.custkey].address,
            fulfilment=self.fulfilment,
        )
        key = idempotency_key(f"{self.plan.run}/order/{order.number}")
        answer = await self.clients.retries.call(
            "CreateOrder", lambda: self.clients.orders.CreateOrder(request, metadata=key)
        )
        self.clients.tally.placed_one()
        return answer.order.order_id

    async def _follow(self, order: PlannedOrder, order_id: str) -> int:
        """Reads the updates of an order until it has ended, however often the stream breaks."""
        last = misnumbered = 0
        ended = False

        async def read() -> None:
            nonlocal last, misnumbered, ended
            request = StreamOrderUpdatesRequest(order_id=order_id, after_sequence=last)
            async for update in self.clients.orders.StreamOrderUpdates(request):
                misnumbered += update.sequence != last + 1
                last = update.sequence
                ended = update.status in ENDED
                self.clients.tally.updated(order.number, update)

        while not ended:
            await self.clients.retries.call("StreamOrderUpdates", read)
            if not ended:
                await asyncio.sleep(PAUSE)
        return misnumbered
