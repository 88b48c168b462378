"""`shopctl token`: for whom calls are made."""

import getpass
from typing import Annotated, Literal

import typer

from shopctl.errors import CommandError, ExitCode
from shopctl.identity import identity_of
from shopctl.options import DEFAULT_HOME, HomeOption

app = typer.Typer()


@app.command()
def token(
    home: HomeOption = DEFAULT_HOME,
    customer: Annotated[
        str, typer.Option(metavar="ID", help="Calls are made for this customer.")
    ] = "",
    role: Annotated[
        Literal["operator"] | None,
        typer.Option(help="Calls are made for you, as one of the staff."),
    ] = None,
) -> None:
    """Print a token that says for whom calls are made; it is valid for a minute.

    shopctl curl -H accord-user:$(shopctl token --customer ID) OrderService/ListOrders
    """
    if bool(customer) == bool(role):
        raise CommandError("say for whom: --customer ID or --role operator", ExitCode.USAGE)
    identity = identity_of(home)
    if identity is None:
        raise CommandError("the shop goes without TLS: nobody there would read a token")
    from accord.identity.users import issue

    subject = customer or getpass.getuser()
    typer.echo(issue(identity.bundle, subject, [role or "customer"]))
