"""`shopctl fault`."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption
from shopctl.operator_options import (
    NO_AGE,
    MethodArgument,
    ReasonOption,
    ThroughOption,
    parse_duration,
    serving,
)

if TYPE_CHECKING:
    from shopctl.client import Shop

app = typer.Typer(
    no_args_is_help=True,
    help="Make a method slow or failing for a while, in the process that serves it.",
)

ALL: Final = 100


@app.command()
def inject(
    method: MethodArgument,
    reason: ReasonOption,
    delay: Annotated[
        timedelta,
        typer.Option(
            parser=parse_duration, metavar="TIME", show_default="none", help="200ms, 2s, 1m."
        ),
    ] = NO_AGE,
    delay_percent: Annotated[
        int, typer.Option(min=0, max=ALL, help="Share of calls that are delayed.")
    ] = ALL,
    abort: Annotated[
        str,
        typer.Option(metavar="CODE", show_default="none", help="A status code: UNAVAILABLE."),
    ] = "",
    abort_percent: Annotated[
        int, typer.Option(min=0, max=ALL, help="Share of calls that are aborted.")
    ] = ALL,
    lasting: Annotated[
        timedelta,
        typer.Option("--for", parser=parse_duration, metavar="TIME", help="At most 1h."),
    ] = timedelta(minutes=1),
    guarded: Annotated[
        bool,
        typer.Option("--guarded", help="Only calls that ask for it by metadata `accord-fault`."),
    ] = False,
    through: ThroughOption = None,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Inject a fault, in place of the one that the method has. It ends by itself.

    Exit code: 0 it is in force, 5 it is refused.
    """
    from shopctl import client, meshing

    name = through or serving(method)
    fault = meshing.fault(
        delay=delay,
        delay_percent=delay_percent if delay else 0,
        abort=abort,
        abort_percent=abort_percent if abort else 0,
        guarded=guarded,
    )

    async def call(shop: "Shop") -> None:
        found = await meshing.inject(shop, name, method, fault, lasting, reason)
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
    """End the fault of a method; without one, nothing happens."""
    from shopctl import client, meshing

    name = through or serving(method)

    async def call(shop: "Shop") -> None:
        found = await meshing.inject(
            shop, name, method, meshing.NO_FAULT, timedelta(seconds=1), reason
        )
        meshing.print_method(name, found, as_json)

    client.run(home, offset, call)
