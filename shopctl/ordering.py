"""What the commands of `shopctl order` do."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import typer

import accord
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.inventory.v1.inventory_pb2 import GetStockRequest
from shop.orders.v1.orders_pb2 import (
    CancelOrderRequest,
    CreateOrderRequest,
    Failure,
    FailureReason,
    GetOrderRequest,
    ListOrdersRequest,
    Order,
    OrderItem,
    OrderStatus,
    StreamOrderUpdatesRequest,
    StreamOrderUpdatesResponse,
)
from shopctl import address, money, show
from shopctl.client import Shop
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.items import WantedItem

MAX_PAGE: Final = 500
ENDED_BADLY: Final = frozenset(
    {
        OrderStatus.ORDER_STATUS_REJECTED,
        OrderStatus.ORDER_STATUS_FAILED,
        OrderStatus.ORDER_STATUS_CANCELLED,
    }
)


async def request(
    shop: Shop,
    customer_id: str,
    wanted: Sequence[WantedItem],
    card: str,
    currency: str,
    where: Mapping[str, str],
) -> CreateOrderRequest:
    """Completes what the user left open: prices and the address.

    Args:
        shop: to look things up in.
        customer_id: who orders.
        wanted: what.
        card: token of the card.
        currency: of the prices in `wanted`.
        where: options of another address than the customer's; empty ones count as not given.
    """
    return CreateOrderRequest(
        customer_id=customer_id,
        items=[
            OrderItem(
                sku=item.sku,
                quantity=item.quantity,
                unit_price=await _price(shop, item, currency),
            )
            for item in wanted
        ],
        card_token=card,
        ship_to=await _ship_to(shop, customer_id, where),
    )


async def place(shop: Shop, request: CreateOrderRequest, key: str) -> Order:
    """Places the order; a repeat with the same key returns the first one."""
    async with shop.calling("orders", key):
        response = await shop.orders.CreateOrder(request, metadata=accord.idempotency_key(key))
    return response.order


async def get(shop: Shop, order_id: str) -> Order:
    """The order as it is now."""
    async with shop.calling("orders"):
        return (await shop.orders.GetOrder(GetOrderRequest(order_id=order_id))).order


async def cancel(shop: Shop, order_id: str, reason: str, key: str) -> Order:
    """Asks for the order to be undone."""
    async with shop.calling("orders", key):
        response = await shop.orders.CancelOrder(
            CancelOrderRequest(order_id=order_id, reason=reason),
            metadata=accord.idempotency_key(key),
        )
    return response.order


async def orders(
    shop: Shop, customer_id: str, status: str | None, limit: int
) -> AsyncIterator[Order]:
    """Up to `limit` orders, newest first, read page by page."""
    wanted = OrderStatus.Value(f"ORDER_STATUS_{(status or 'unspecified').upper()}")
    token = ""
    while limit > 0:
        async with shop.calling("orders"):
            page = await shop.orders.ListOrders(
                ListOrdersRequest(
                    page_size=min(limit, MAX_PAGE),
                    page_token=token,
                    customer_id=customer_id,
                    status=wanted,
                )
            )
        for order in page.orders:
            yield order
        limit -= len(page.orders)
        token = page.next_page_token
        if not token:
            break


async def watch(shop: Shop, order_id: str, after: int, as_json: bool) -> Order:
    """Prints the updates of an order until it has ended, and returns it.

    The contract says how to resume the stream, so that a broken connection goes unnoticed.
    """
    updates = StreamOrderUpdatesRequest(order_id=order_id, after_sequence=after)
    async with shop.calling("orders"):
        async for update in shop.orders.StreamOrderUpdates(updates):
            if as_json:
                show.as_json(update)
            else:
                typer.echo(_update_line(update))
    return await get(shop, order_id)


def check_outcome(order: Order) -> None:
    """Ends the command with 5 if the order has ended badly."""
    if order.status in ENDED_BADLY:
        raise CommandError(
            f"order {order.order_id} is {status_name(order.status)} ({_failure(order.failure)})",
            ExitCode.REFUSED,
        )


def print_order(order: Order, as_json: bool) -> None:
    """Everything about an order."""
    if as_json:
        show.as_json(order)
        return
    items = ", ".join(
        f"{item.quantity} x {item.sku} at {money.show(item.unit_price)}" for item in order.items
    )
    show.fields(
        order=order.order_id,
        status=status_name(order.status),
        customer=order.customer_id,
        items=items,
        total=money.show(order.total),
        ship_to=address.show(order.ship_to),
        failure=_failure(order.failure) if order.HasField("failure") else "",
        payment=order.payment_id,
        shipment=order.shipment_id,
        tracking=order.tracking_number,
        notes=" / ".join(order.notes),
        created=show.moment(order.created_at),
        updated=show.moment(order.updated_at),
    )


def print_line(order: Order, as_json: bool) -> None:
    """An order in one line."""
    if as_json:
        show.as_json(order)
        return
    typer.echo(
        f"{order.order_id}  {show.moment(order.created_at)}  {status_name(order.status):<9}  "
        f"{money.show(order.total):>14}"
    )


def status_name(status: "OrderStatus.ValueType") -> str:
    """`PENDING`; the number of one that this version does not know."""
    if status not in OrderStatus.values():
        return str(status)
    return OrderStatus.Name(status).removeprefix("ORDER_STATUS_")


def _update_line(update: StreamOrderUpdatesResponse) -> str:
    event = update.event_type.rpartition(".")[2]
    line = (
        f"{show.moment(update.occurred_at)}  {update.sequence:>3}  {event:<20}  "
        f"{status_name(update.status)}"
    )
    return f"{line}  {_failure(update.failure)}" if update.HasField("failure") else line


def _failure(failure: Failure) -> str:
    known = failure.reason in FailureReason.values()
    reason = FailureReason.Name(failure.reason) if known else str(failure.reason)
    return f"{reason.removeprefix('FAILURE_REASON_')}: {failure.detail}".removesuffix(": ")


async def _price(shop: Shop, item: WantedItem, currency: str) -> Money:
    if item.price is not None:
        return money.parse(item.price, currency)
    async with shop.calling("inventory"):
        response = await shop.inventory.GetStock(GetStockRequest(sku=item.sku))
    return response.product.price


async def _ship_to(shop: Shop, customer_id: str, where: Mapping[str, str]) -> Address:
    async with shop.calling("customers"):
        response = await shop.customers.GetCustomer(GetCustomerRequest(customer_id=customer_id))
    customer = response.customer
    other = address.build(
        name=customer.name,
        street=where["street"],
        city=where["city"],
        postal_code=where["postal_code"],
        country=where["country"],
    )
    if other is not None:
        return other
    if not customer.HasField("address"):
        raise CommandError(
            f"customer {customer_id} has no address; give one with --street, --city, --country",
            ExitCode.USAGE,
        )
    return customer.address
