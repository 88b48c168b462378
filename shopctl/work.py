"""`shopctl work`."""

import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.common import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    KeyOption,
    ShopOffsetOption,
)
from shopctl.operator_options import (
    NAMES,
    NO_AGE,
    AgeOption,
    AnyServiceOption,
    LimitOption,
    ReasonOption,
    ServiceOption,
)

if TYPE_CHECKING:
    from shopctl.client import Shop

app = typer.Typer(
    no_args_is_help=True,
    help="Look at background work, and settle what is parked after too many failures.",
)

WorkArgument = Annotated[str, typer.Argument(metavar="ID", help="The item of work.")]


class State(StrEnum):
    """Where an item can stand, as in the contract."""

    READY = "ready"
    PARKED = "parked"
    LEASED = "leased"


@app.command("list")
def list_work(
    service: AnyServiceOption = None,
    state: Annotated[State | None, typer.Option(help="Only work that stands like this.")] = None,
    queue: Annotated[str, typer.Option(metavar="NAME", help="Only work of this queue.")] = "",
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List work, oldest first; of every service, one after the other, unless one is named."""
    from shopctl import client, working

    names = [service] if service else NAMES

    async def call(shop: "Shop") -> None:
        for name in names:
            async for item in working.items(shop, name, state, queue, min_age, limit):
                working.print_line(name, item, as_json)

    client.run(home, offset, call)


@app.command()
def show(
    work_id: WorkArgument,
    service: ServiceOption,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an item with its failures."""
    from shopctl import client, working

    async def call(shop: "Shop") -> None:
        working.print_all(await working.get(shop, service, work_id), as_json)

    client.run(home, offset, call)


@app.command()
def retry(
    work_id: WorkArgument,
    service: ServiceOption,
    reason: ReasonOption,
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try an item again, now and with all its attempts.

    Exit code: 0 it is due, 5 there is no such item (any more), or it is being tried right now.
    """
    from shopctl import client, working

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        item = await working.retry(shop, service, work_id, reason, key)
        working.print_line(service, item, as_json)

    client.run(home, offset, call)


@app.command()
def discard(
    work_id: WorkArgument,
    service: ServiceOption,
    reason: ReasonOption,
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a parked item up, for good. The work behind it goes on; the item is printed.

    Exit code: 0 it is gone, 5 there is no such item, or it is not parked.
    """
    from shopctl import client, working

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        item = await working.discard(shop, service, work_id, reason, key)
        working.print_line(service, item, as_json)

    client.run(home, offset, call)
