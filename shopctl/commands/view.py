"""`shopctl view`."""

import asyncio
from typing import Annotated, Final

import typer

from shop.analytics.v1 import analytics_pb2 as pb
from shop.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from shopctl.client import Shop, with_shop
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import Columns, enum_name, format_time
from shopctl.options import KeyOption

app = typer.Typer(
    name="view", no_args_is_help=True, help="Look at the views of analytics, and rebuild them."
)

SERVICE: Final = "analytics"

COLUMNS: Final = Columns(VIEW=12, STATE=10, UP_TO=-8, WAITING=-8, BUILT=19, NOTE=0)

PAUSE: Final = 0.2
"""Seconds between two looks at a rebuild."""


@app.command("list")
@with_shop
async def list_views(shop: Shop) -> None:
    """List the views: how complete each is, what it waits for, and when it was built."""
    found = shop.rows(SERVICE, AnalyticsServiceStub, "ListViews", pb.ListViewsRequest())
    with shop.listing("views", COLUMNS) as row:
        async for view in found:
            row(view, _line(view))


@app.command()
@with_shop
async def rebuild(
    shop: Shop,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The view.")],
    key: KeyOption = "",
) -> None:
    """Rebuild a view from the first event on, and follow that to its end; it may be left.

    Exit code: 0 it is rebuilt, 5 there is no such view, or it could not be rebuilt.
    """
    request = pb.RebuildViewRequest(name=name)
    view = (await shop.change(SERVICE, AnalyticsServiceStub, "RebuildView", request, key)).view
    wanted, shown = view.rebuild.generation, ""
    while True:
        if (line := _line(view)) != shown:
            shop.print(view, shown := line)
        if view.rebuild.generation != wanted:
            break
        await asyncio.sleep(PAUSE)
        async with shop.calling(SERVICE) as channel:
            stub = AnalyticsServiceStub(channel)
            view = (await stub.GetView(pb.GetViewRequest(name=name))).view
    if view.generation < wanted:
        raise CommandError(f"view {name} is what it was: {view.problem}", ExitCode.REFUSED)


def _line(view: pb.View) -> str:
    complete, state = view.completeness, enum_name(pb.ViewState.items(), view.state)
    note = view.problem
    if view.HasField("rebuild"):
        note = f"rebuilding {view.rebuild.position}/{view.rebuild.target or '?'}  {note}".rstrip()
    up_to = (str(complete.position), str(complete.waiting))
    return COLUMNS.line(view.name, state, *up_to, format_time(view.built_at), note)
