"""`shopctl customer`."""

import uuid
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
    from shop.customers.v1.customers_pb2 import Customer
    from shopctl.client import Shop

app = typer.Typer(no_args_is_help=True, help="Create and look at customers.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Full name.")],
    email: Annotated[str, typer.Option(help="E-mail address; nobody else may have it.")],
    street: StreetOption = "",
    city: CityOption = "",
    postal_code: PostalCodeOption = "",
    country: CountryOption = "",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
    id_only: IdOnlyOption = False,
) -> None:
    """Create a customer. With an address, orders go there by default."""
    import accord
    from shop.customers.v1.customers_pb2 import CreateCustomerRequest
    from shopctl import address, client

    request = CreateCustomerRequest(name=name, email=email)
    to = address.build(
        name=name, street=street, city=city, postal_code=postal_code, country=country
    )
    if to is not None:
        request.address.CopyFrom(to)
    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        async with shop.calling("customers", key):
            response = await shop.customers.CreateCustomer(
                request, metadata=accord.idempotency_key(key)
            )
        if id_only:
            typer.echo(response.customer.customer_id)
        else:
            _print(response.customer, as_json)

    client.run(home, offset, call)


@app.command()
def get(
    customer_id: Annotated[str, typer.Argument(metavar="ID")],
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a customer."""
    from shop.customers.v1.customers_pb2 import GetCustomerRequest
    from shopctl import client

    async def call(shop: "Shop") -> None:
        async with shop.calling("customers"):
            response = await shop.customers.GetCustomer(GetCustomerRequest(customer_id=customer_id))
        _print(response.customer, as_json)

    client.run(home, offset, call)


@app.command("list")
def list_customers(
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all customers, oldest first."""
    from shop.customers.v1.customers_pb2 import ListCustomersRequest
    from shopctl import client, show

    async def call(shop: "Shop") -> None:
        async with shop.calling("customers"):
            async for response in shop.customers.ListCustomers(ListCustomersRequest()):
                customer = response.customer
                if as_json:
                    show.as_json(customer)
                else:
                    typer.echo(f"{customer.customer_id}  {customer.name} <{customer.email}>")

    client.run(home, offset, call)


def _print(customer: "Customer", as_json: bool) -> None:
    from shopctl import address, show

    if as_json:
        show.as_json(customer)
        return
    show.fields(
        customer=customer.customer_id,
        name=customer.name,
        email=customer.email,
        address=address.show(customer.address) if customer.HasField("address") else "",
        created=show.moment(customer.created_at),
    )
