"""`shopctl authz`: who may call what."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from shopctl.options import JsonOption, complete_method
from shopctl.terminal import harmless

app = typer.Typer(name="authz", no_args_is_help=True, help="Who may call what, and why.")


@app.command()
def explain(
    caller: Annotated[
        str,
        typer.Argument(
            metavar="CALLER", help="A service, edge, operator, anonymous, or a SPIFFE id."
        ),
    ],
    method: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_method,
            metavar="METHOD",
            help="E.g. shop.orders.v1.OrderService/GetOrder, or OrderService/GetOrder.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Say whether CALLER may call METHOD, by which line of which contract.

    Needs no running shop. Live policy cannot change it.
    """
    from shopctl.authorization import explain as explained  # brings all contracts

    found = explained(caller, method)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    verdict = "may call" if found.allowed else "may NOT call"
    typer.echo(harmless(f"{found.caller} {verdict} {found.method}"))
    typer.echo(harmless(f"why       {found.reason or 'ALLOWED'}: {found.why}"))
    typer.echo(f"contract  {found.contract}: {', '.join(found.allow) or 'nobody'}")
