"""`shopctl order`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import typer

from shop.common.v1.address_pb2 import Address
from shop.common.v1.fulfilment_pb2 import Fulfilment
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1.inventory_pb2 import GetStockRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shopctl.client import Shop, with_shop
from shopctl.commands.trace import trace
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import (
    Columns,
    WantedItem,
    build_address,
    enum_name,
    format_address,
    format_fields,
    format_money,
    format_time,
    parse_item,
    parse_money,
)
from shopctl.options import (
    CityOption,
    CountryOption,
    FulfilmentOption,
    IdOnlyOption,
    KeyOption,
    PostalCodeOption,
    StreetOption,
)

app = typer.Typer(name="order", no_args_is_help=True, help="Place orders and follow them.")

OrderArgument = Annotated[str, typer.Argument(metavar="ID", help="The order.")]

COLUMNS: Final = Columns(ORDER=36, PLACED=19, STATUS=9, TOTAL=-14)

ENDED_BADLY: Final = frozenset(
    {
        pb.OrderStatus.ORDER_STATUS_REJECTED,
        pb.OrderStatus.ORDER_STATUS_FAILED,
        pb.OrderStatus.ORDER_STATUS_CANCELLED,
    }
)


# Where an order can stand, as in the contract.
Status = Literal[
    "pending",
    "created",
    "paid",
    "shipping",
    "shipped",
    "confirmed",
    "undoing",
    "rejected",
    "failed",
    "cancelled",
]


@app.command()
@with_shop
async def place(
    shop: Shop,
    customer: Annotated[str, typer.Option(metavar="ID", help="Who orders.")],
    item: Annotated[
        list[str],
        typer.Option(
            metavar="SKU:QTY[:PRICE]",
            help="What is ordered; may be repeated. Without a price, at today's.",
        ),
    ],
    card: Annotated[str, typer.Option(metavar="TOKEN", help="Card to charge.")] = "tok_visa",
    currency: Annotated[
        str, typer.Option(metavar="CCC", help="Of the prices that are given; ISO 4217.")
    ] = "EUR",
    street: StreetOption = "",
    city: CityOption = "",
    postal_code: PostalCodeOption = "",
    country: CountryOption = "",
    fulfilment: FulfilmentOption = "orchestrated",
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it to its end.")] = False,
    key: KeyOption = "",
    id_only: IdOnlyOption = False,
) -> None:
    """Place an order. It goes to the customer's address unless another is given.

    Exit code: 0 it stands (with --watch: it was confirmed), 5 it does not, 7 no answer in time
    (repeat it with the same --key to find out).
    """
    wanted = [parse_item(text) for text in item]
    where = {"street": street, "city": city, "postal_code": postal_code, "country": country}
    request = pb.CreateOrderRequest(
        customer_id=customer,
        items=[
            pb.OrderItem(
                sku=each.sku, quantity=each.quantity, unit_price=await _price(shop, each, currency)
            )
            for each in wanted
        ],
        card_token=card,
        ship_to=await _ship_to(shop, customer, where),
        fulfilment=Fulfilment.Value(f"FULFILMENT_{fulfilment.upper()}"),
    )
    response = await shop.change("orders", OrderServiceStub, "CreateOrder", request, key)
    order = response.order
    if id_only:
        typer.echo(order.order_id)
    else:
        shop.print(order, *_lines(order))
    if watch:
        order = await _watch(shop, order.order_id, 0)
    check_outcome(order)


@app.command()
@with_shop
async def get(
    shop: Shop,
    order_id: OrderArgument,
    at: Annotated[
        str, typer.Option(metavar="N|TIME", help="As it was after its Nth event, or at a time.")
    ] = "",
) -> None:
    """Show an order, as it is or as it was; a time is ISO 8601, local unless it says otherwise."""
    order = await _get(shop, order_id, at)
    shop.print(order, *_lines(order))


@app.command("list")
@with_shop
async def list_orders(
    shop: Shop,
    customer: Annotated[str, typer.Option(metavar="ID", help="Only orders of this customer.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only orders that stand like this.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """List orders, newest first."""
    wanted = pb.OrderStatus.Value(f"ORDER_STATUS_{(status or 'unspecified').upper()}")
    request = pb.ListOrdersRequest(customer_id=customer, status=wanted)
    with shop.listing("orders", COLUMNS) as row:
        async for order in shop.rows("orders", OrderServiceStub, "ListOrders", request, limit):
            stands = enum_name(pb.OrderStatus.items(), order.status)
            at, total = format_time(order.created_at), format_money(order.total)
            row(order, COLUMNS.line(order.order_id, at, stands, total))


@app.command()
@with_shop
async def watch(
    shop: Shop,
    order_id: OrderArgument,
    after: Annotated[int, typer.Option(min=0, help="Number of the last update already seen.")] = 0,
) -> None:
    """Follow an order until it has ended, over restarts of the service.

    Exit code: 0 it was confirmed, 5 it was rejected, failed or cancelled.
    """
    check_outcome(await _watch(shop, order_id, after))


@app.command()
@with_shop
async def cancel(
    shop: Shop,
    order_id: OrderArgument,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    key: KeyOption = "",
) -> None:
    """Ask for an order to be cancelled. It is undone in the background; watch shows it.

    Exit code: 0 it is being undone, 5 it is too late.
    """
    request = pb.CancelOrderRequest(order_id=order_id, reason=reason)
    response = await shop.change("orders", OrderServiceStub, "CancelOrder", request, key)
    shop.print(response.order, *_lines(response.order))


app.command()(trace)


def check_outcome(order: pb.Order) -> None:
    """Ends the command with 5 if the order has ended badly."""
    if order.status in ENDED_BADLY:
        raise CommandError(
            f"order {order.order_id} is {enum_name(pb.OrderStatus.items(), order.status)} "
            f"({_failure(order.failure)})",
            ExitCode.REFUSED,
        )


def _lines(order: pb.Order) -> list[str]:
    """Everything about an order."""
    items = ", ".join(
        f"{item.quantity} x {item.sku} at {format_money(item.unit_price)}" for item in order.items
    )
    return format_fields(
        order=order.order_id,
        status=enum_name(pb.OrderStatus.items(), order.status),
        customer=order.customer_id,
        fulfilment=enum_name(Fulfilment.items(), order.fulfilment) if order.fulfilment else "",
        items=items,
        total=format_money(order.total),
        ship_to=format_address(order.ship_to),
        failure=_failure(order.failure) if order.HasField("failure") else "",
        payment=order.payment_id,
        shipment=order.shipment_id,
        tracking=order.tracking_number,
        notes=" / ".join(order.notes),
        created=format_time(order.created_at),
        updated=format_time(order.updated_at),
    )


async def _get(shop: Shop, order_id: str, at: str = "") -> pb.Order:
    request = pb.GetOrderRequest(order_id=order_id)
    if at.isdecimal() and len(at) < 19:
        request.at_sequence = int(at)
    elif at:
        try:
            request.at_time.FromDatetime(datetime.fromisoformat(at).astimezone(UTC))
        except (ValueError, OverflowError) as error:
            text = f"--at {at} is neither a number nor a time such as 2026-01-31T12:00:00"
            raise CommandError(text, ExitCode.USAGE) from error
    async with shop.calling("orders") as channel:
        order = (await OrderServiceStub(channel).GetOrder(request)).order
    if request.at_sequence and order.sequence != request.at_sequence:
        text = "this version of orders only shows what an order is now"
        raise CommandError(text, ExitCode.FAILED)
    return order


async def _watch(shop: Shop, order_id: str, after: int) -> pb.Order:
    """Prints the updates of an order until it has ended, and returns it.

    The contract says how to resume the stream, so that a broken connection goes unnoticed.
    """
    request = pb.StreamOrderUpdatesRequest(order_id=order_id, after_sequence=after)
    async with shop.calling("orders") as channel:
        async for update in OrderServiceStub(channel).StreamOrderUpdates(request):
            shop.print(update, _update_line(update))
    return await _get(shop, order_id)


def _update_line(update: pb.StreamOrderUpdatesResponse) -> str:
    event = update.event_type.rpartition(".")[2]
    line = (
        f"{format_time(update.occurred_at)}  {update.sequence:>3}  {event:<20}  "
        f"{enum_name(pb.OrderStatus.items(), update.status)}"
    )
    return f"{line}  {_failure(update.failure)}" if update.HasField("failure") else line


def _failure(failure: pb.Failure) -> str:
    reason = enum_name(pb.FailureReason.items(), failure.reason)
    return f"{reason}: {failure.detail}".removesuffix(": ")


async def _price(shop: Shop, item: WantedItem, currency: str) -> Money:
    if item.price is not None:
        return parse_money(item.price, currency)
    async with shop.calling("inventory") as channel:
        response = await InventoryServiceStub(channel).GetStock(GetStockRequest(sku=item.sku))
    return response.product.price


async def _ship_to(shop: Shop, customer_id: str, where: Mapping[str, str]) -> Address:
    """Where an order goes: to the customer unless `where`, by options, names another address."""
    async with shop.calling("customers") as channel:
        request = GetCustomerRequest(customer_id=customer_id)
        customer = (await CustomerServiceStub(channel).GetCustomer(request)).customer
    other = build_address(name=customer.name, **where)
    if other is not None:
        return other
    if not customer.HasField("address"):
        raise CommandError(
            f"customer {customer_id} has no address; give one with --street, --city, --country",
            ExitCode.USAGE,
        )
    return customer.address
