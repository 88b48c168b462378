"""`shopctl token`: for whom calls are made."""

import getpass
from typing import Annotated, Literal

import typer

from shopctl import issuer
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
    internal: Annotated[
        bool, typer.Option("--internal", help="Not for the edge: for metadata, for a minute.")
    ] = False,
) -> None:
    """Print a bearer token of the edge, valid for 15 minutes: it says for whom requests are.

    curl -H "Authorization: Bearer $(shopctl token --customer ID)" localhost:8080/v1/orders

    With --internal, the token that services themselves understand, by the operator's certificate:

    shopctl curl -H accord-user:$(shopctl token --internal --customer ID) OrderService/ListOrders
    """
    if bool(customer) == bool(role):
        raise CommandError("say for whom: --customer ID or --role operator", ExitCode.USAGE)
    subject, roles = customer or getpass.getuser(), [role or "customer"]
    if not internal:
        typer.echo(issuer.issue(home, subject, roles))
        return
    identity = identity_of(home)
    if identity is None:
        raise CommandError("the shop goes without TLS: nobody there would read a token")
    from accord.identity.users import issue

    typer.echo(issue(identity.bundle, subject, roles))
