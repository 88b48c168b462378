"""`shopctl customer`."""

from typing import Annotated, Final

import typer

from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import Columns, build_address, format_address, format_fields, format_time
from shopctl.options import (
    CityOption,
    CountryOption,
    IdOnlyOption,
    KeyOption,
    PostalCodeOption,
    StreetOption,
)

COLUMNS: Final = Columns(CUSTOMER=36, NAME=24, EMAIL=0)

app = typer.Typer(name="customer", no_args_is_help=True, help="Create and look at customers.")


@app.command()
@with_shop
async def create(
    shop: Shop,
    name: Annotated[str, typer.Option(help="Full name.")],
    email: Annotated[str, typer.Option(help="E-mail address; nobody else may have it.")],
    street: StreetOption = "",
    city: CityOption = "",
    postal_code: PostalCodeOption = "",
    country: CountryOption = "",
    key: KeyOption = "",
    id_only: IdOnlyOption = False,
) -> None:
    """Create a customer. With an address, orders go there by default."""
    address = build_address(
        name=name, street=street, city=city, postal_code=postal_code, country=country
    )
    request = pb.CreateCustomerRequest(name=name, email=email, address=address)
    stub = CustomerServiceStub
    response = await shop.change("customers", stub, "CreateCustomer", request, key)
    if id_only:
        typer.echo(response.customer.customer_id)
    else:
        shop.print(response.customer, *_lines(response.customer))


@app.command()
@with_shop
async def get(shop: Shop, customer_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show a customer."""
    async with shop.calling("customers") as channel:
        request = pb.GetCustomerRequest(customer_id=customer_id)
        response = await CustomerServiceStub(channel).GetCustomer(request)
    shop.print(response.customer, *_lines(response.customer))


@app.command("list")
@with_shop
async def list_customers(shop: Shop) -> None:
    """List all customers, oldest first."""
    async with shop.calling("customers") as channel:
        request = pb.ListCustomersRequest()
        with shop.listing("customers", COLUMNS) as row:
            async for response in CustomerServiceStub(channel).ListCustomers(request):
                customer = response.customer
                row(customer, COLUMNS.line(customer.customer_id, customer.name, customer.email))


def _lines(customer: pb.Customer) -> list[str]:
    return format_fields(
        customer=customer.customer_id,
        name=customer.name,
        email=customer.email,
        address=format_address(customer.address) if customer.HasField("address") else "",
        created=format_time(customer.created_at),
    )
