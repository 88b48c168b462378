"""`shopctl order`."""

import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.address import CityOption, CountryOption, PostalCodeOption, StreetOption
from shopctl.common import (
    DEFAULT_HOME,
    HomeOption,
    IdOnlyOption,
    JsonOption,
    KeyOption,
    ShopOffsetOption,
)

if TYPE_CHECKING:
    from shopctl.client import Shop

app = typer.Typer(no_args_is_help=True, help="Place orders and follow them.")

OrderArgument = Annotated[str, typer.Argument(metavar="ID", help="The order.")]


class Status(StrEnum):
    """Where an order can stand, as in the contract."""

    PENDING = "pending"
    CREATED = "created"
    PAID = "paid"
    SHIPPING = "shipping"
    SHIPPED = "shipped"
    CONFIRMED = "confirmed"
    UNDOING = "undoing"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command()
def place(
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
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it to its end.")] = False,
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
    id_only: IdOnlyOption = False,
) -> None:
    """Place an order. It goes to the customer's address unless another is given.

    Exit code: 0 it stands (with --watch: it was confirmed), 5 it does not, 7 no answer in time
    (repeat it with the same --key to find out).
    """
    from shopctl import client, items, ordering

    wanted = [items.parse(text) for text in item]
    where = {"street": street, "city": city, "postal_code": postal_code, "country": country}
    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        request = await ordering.request(shop, customer, wanted, card, currency, where)
        order = await ordering.place(shop, request, key)
        if id_only:
            typer.echo(order.order_id)
        else:
            ordering.print_order(order, as_json)
        if watch:
            order = await ordering.watch(shop, order.order_id, 0, as_json)
        ordering.check_outcome(order)

    client.run(home, offset, call)


@app.command()
def get(
    order_id: OrderArgument,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an order."""
    from shopctl import client, ordering

    async def call(shop: "Shop") -> None:
        ordering.print_order(await ordering.get(shop, order_id), as_json)

    client.run(home, offset, call)


@app.command("list")
def list_orders(
    customer: Annotated[str, typer.Option(metavar="ID", help="Only orders of this customer.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only orders that stand like this.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List orders, newest first."""
    from shopctl import client, ordering

    async def call(shop: "Shop") -> None:
        async for order in ordering.orders(shop, customer, status, limit):
            ordering.print_line(order, as_json)

    client.run(home, offset, call)


@app.command()
def watch(
    order_id: OrderArgument,
    after: Annotated[int, typer.Option(min=0, help="Number of the last update already seen.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow an order until it has ended, over restarts of the service.

    Exit code: 0 it was confirmed, 5 it was rejected, failed or cancelled.
    """
    from shopctl import client, ordering

    async def call(shop: "Shop") -> None:
        ordering.check_outcome(await ordering.watch(shop, order_id, after, as_json))

    client.run(home, offset, call)


@app.command()
def cancel(
    order_id: OrderArgument,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for an order to be cancelled. It is undone in the background; watch shows it.

    Exit code: 0 it is being undone, 5 it is too late.
    """
    from shopctl import client, ordering

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        ordering.print_order(await ordering.cancel(shop, order_id, reason, key), as_json)

    client.run(home, offset, call)


@app.command()
def trace(
    order_id: OrderArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what came after it, in the background.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what placing an order took, call by call and attempt by attempt, as a timeline.

    Every service keeps its last 2,000 spans until it ends; no collector is needed.

    Exit code: 0 shown, 5 there is no such order, or its spans are gone.
    """
    from shopctl import client, tracing

    async def call(shop: "Shop") -> None:
        await tracing.trace(shop, order_id, everything=everything, as_json=as_json)

    client.run(home, offset, call)
