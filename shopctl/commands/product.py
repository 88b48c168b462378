"""`shopctl product`."""

from typing import Annotated, Final

import typer

from shop.inventory.v1.inventory_pb2 import ListStockRequest, Product, UpsertProductRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import Columns, format_money, parse_money

COLUMNS: Final = Columns(SKU=20, PRICE=-14, AVAILABLE=-9, RESERVED=-8, NAME=0)

app = typer.Typer(
    name="product", no_args_is_help=True, help="Put products on the shelf and look at the stock."
)


@app.command()
@with_shop
async def put(
    shop: Shop,
    sku: Annotated[str, typer.Argument(help="Stock-keeping unit.")],
    price: Annotated[str, typer.Option(help="Price of one unit, e.g. 4.50.")],
    stock: Annotated[int, typer.Option(min=0, help="Units in the warehouse.")],
    name: Annotated[str, typer.Option(show_default="the SKU", help="What it is called.")] = "",
    currency: Annotated[str, typer.Option(metavar="CCC", help="ISO 4217 code.")] = "EUR",
) -> None:
    """Create a product, or replace its name, price and stock."""
    request = UpsertProductRequest(
        sku=sku, name=name or sku, price=parse_money(price, currency), on_hand=stock
    )
    async with shop.calling("inventory") as channel:
        response = await InventoryServiceStub(channel).UpsertProduct(request)
    with shop.listing("products", COLUMNS) as row:
        row(response.product, _line(response.product))


@app.command("list")
@with_shop
async def list_products(shop: Shop) -> None:
    """List all products with their stock, by SKU."""
    async with shop.calling("inventory") as channel:
        with shop.listing("products", COLUMNS) as row:
            async for response in InventoryServiceStub(channel).ListStock(ListStockRequest()):
                row(response.product, _line(response.product))


def _line(product: Product) -> str:
    stock = (str(product.available), str(product.reserved))
    return COLUMNS.line(product.sku, format_money(product.price), *stock, product.name)
