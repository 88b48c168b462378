"""`shopctl policy`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption
from shopctl.operator_options import (
    NAMES,
    AnyServiceOption,
    MethodArgument,
    ReasonOption,
    ThroughOption,
    serving,
)

if TYPE_CHECKING:
    from shopctl.client import Shop

app = typer.Typer(
    no_args_is_help=True,
    help="Look at live policy, and change it: every process follows within a second.",
)


@app.command("get")
def get(
    method: Annotated[
        str, typer.Argument(metavar="[METHOD]", show_default="all", help="Only of this method.")
    ] = "",
    service: AnyServiceOption = None,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the overrides that are in force in each process, and those that it has refused."""
    from shopctl import client, meshing

    names = [service] if service else NAMES

    async def call(shop: "Shop") -> None:
        for name in names:
            meshing.print_overrides(name, await meshing.state(shop, name, method), as_json)

    client.run(home, offset, call)


@app.command("set")
def set_override(
    method: MethodArgument,
    override: Annotated[
        str,
        typer.Argument(
            metavar="JSON",
            help='What differs from the contract, e.g. \'{"policy": {"timeout": "2s"},'
            ' "dark": ["DARK_POLICY_HEDGE"]}\'; the same as in a policy file.',
        ),
    ],
    reason: ReasonOption,
    through: ThroughOption = None,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an override into force in the whole mesh; it replaces the method's last one.

    Exit code: 0 it is in force, 5 it is refused: it does not parse, contradicts itself, or weakens
    a floor of the contract.
    """
    from shopctl import client, meshing

    name = through or serving(method)

    async def call(shop: "Shop") -> None:
        found = await meshing.set_override(shop, name, method, override, reason)
        meshing.print_method(name, found, as_json)

    client.run(home, offset, call)


@app.command()
def clear(
    method: MethodArgument,
    reason: ReasonOption,
    through: ThroughOption = None,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a method's override back. What a policy file says stays in force."""
    from shopctl import client, meshing

    name = through or serving(method)

    async def call(shop: "Shop") -> None:
        found = await meshing.clear_override(shop, name, method, reason)
        meshing.print_method(name, found, as_json)

    client.run(home, offset, call)
