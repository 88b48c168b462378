"""`shopctl mesh`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption
from shopctl.operator_options import NAMES, AnyServiceOption

if TYPE_CHECKING:
    from shopctl.client import Shop


def mesh(
    service: AnyServiceOption = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="PREFIX",
            show_default="all",
            help="Only methods whose full name begins so.",
        ),
    ] = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the policies of each process do: limits, breakers, budgets, hedges, overrides."""
    from shopctl import client, meshing

    names = [service] if service else NAMES

    async def call(shop: "Shop") -> None:
        for name in names:
            meshing.print_state(name, await meshing.state(shop, name, method), as_json)

    client.run(home, offset, call)
