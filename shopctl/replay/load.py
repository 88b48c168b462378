"""Puts customers and products into the shop."""

from collections.abc import Mapping

from accord.context import idempotency_key
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
from shopctl.replay.clients import Clients
from shopctl.replay.nations import COUNTRY_CODES
from shopctl.replay.parallel import for_each
from shopctl.replay.patience import Patience
from shopctl.replay.plan import Buyer, Plan, Ware
from shopctl.replay.tally import Tally


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
    plan: Plan, clients: Clients, patience: Patience, tally: Tally, concurrency: int
) -> Mapping[int, str]:
    """Creates the customers and products of a plan; returns customer key -> customer id.

    Raises:
        CommandError: a service refused.
    """
    customer_ids: dict[int, str] = {}

    async def create(buyer: Buyer) -> None:
        request = CreateCustomerRequest(name=buyer.name, email=buyer.email, address=address(buyer))
        key = idempotency_key(f"{plan.run}/customer/{buyer.custkey}")
        answer = await patience.call(
            "CreateCustomer", lambda: clients.customers.CreateCustomer(request, metadata=key)
        )
        customer_ids[buyer.custkey] = answer.customer.customer_id
        tally.step()

    async def stock(ware: Ware) -> None:
        request = UpsertProductRequest(
            sku=ware.sku, name=ware.name, price=cents(ware.price), on_hand=ware.on_hand
        )
        await patience.call("UpsertProduct", lambda: clients.inventory.UpsertProduct(request))
        tally.step()

    tally.begin("creating customers", len(plan.buyers))
    await for_each(plan.buyers.values(), concurrency, create)
    tally.begin("stocking products", len(plan.wares))
    await for_each(plan.wares, concurrency, stock)
    return customer_ids
