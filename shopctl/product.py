"""`shopctl product`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption

if TYPE_CHECKING:
    from shop.inventory.v1.inventory_pb2 import Product
    from shopctl.client import Shop

app = typer.Typer(no_args_is_help=True, help="Put products on the shelf and look at the stock.")


@app.command()
def put(
    sku: Annotated[str, typer.Argument(help="Stock-keeping unit.")],
    price: Annotated[str, typer.Option(help="Price of one unit, e.g. 4.50.")],
    stock: Annotated[int, typer.Option(min=0, help="Units in the warehouse.")],
    name: Annotated[str, typer.Option(show_default="the SKU", help="What it is called.")] = "",
    currency: Annotated[str, typer.Option(metavar="CCC", help="ISO 4217 code.")] = "EUR",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a product, or replace its name, price and stock."""
    from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
    from shopctl import client, money

    request = UpsertProductRequest(
        sku=sku, name=name or sku, price=money.parse(price, currency), on_hand=stock
    )

    async def call(shop: "Shop") -> None:
        async with shop.calling("inventory"):
            response = await shop.inventory.UpsertProduct(request)
        _print(response.product, as_json)

    client.run(home, offset, call)


@app.command("list")
def list_products(
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all products with their stock, by SKU."""
    from shop.inventory.v1.inventory_pb2 import ListStockRequest
    from shopctl import client

    async def call(shop: "Shop") -> None:
        async with shop.calling("inventory"):
            async for response in shop.inventory.ListStock(ListStockRequest()):
                _print(response.product, as_json)

    client.run(home, offset, call)


def _print(product: "Product", as_json: bool) -> None:
    from shopctl import money, show

    if as_json:
        show.as_json(product)
        return
    typer.echo(
        f"{product.sku:<20}  {money.show(product.price):>14}  {product.available} available, "
        f"{product.reserved} reserved  {product.name}"
    )
