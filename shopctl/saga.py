"""`shopctl saga`."""

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
    NO_AGE,
    AgeOption,
    LimitOption,
    ReasonOption,
    ServiceOption,
)

if TYPE_CHECKING:
    from shopctl.client import Shop

app = typer.Typer(
    no_args_is_help=True, help="Look at sagas, and settle those that cannot go on by themselves."
)

SagaArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The saga; an order's has the order's id.")
]


class Phase(StrEnum):
    """Which way a saga can go and how it can end, as in the contract."""

    FORWARD = "forward"
    BACKWARD = "backward"
    DONE = "done"
    UNDONE = "undone"
    ABANDONED = "abandoned"


@app.command("list")
def list_sagas(
    definition: Annotated[
        str, typer.Option(metavar="NAME", help="Only sagas of this kind, e.g. order.")
    ] = "",
    phase: Annotated[Phase | None, typer.Option(help="Only sagas in this phase.")] = None,
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
    service: ServiceOption = "orders",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List sagas, oldest first."""
    from shopctl import client, sagas

    async def call(shop: "Shop") -> None:
        async for saga in sagas.sagas(shop, service, definition, phase, min_age, limit):
            sagas.print_line(saga, as_json)

    client.run(home, offset, call)


@app.command()
def show(
    saga_id: SagaArgument,
    service: ServiceOption = "orders",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a saga: where it stands, what came of its steps, and its last error."""
    from shopctl import client, sagas

    async def call(shop: "Shop") -> None:
        sagas.print_all(await sagas.get(shop, service, saga_id), as_json)

    client.run(home, offset, call)


@app.command()
def retry(
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try the current step again, now and with all its attempts.

    Exit code: 0 it is due, 5 the saga has ended, or the step is being tried right now.
    """
    from shopctl import client, sagas

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        sagas.print_line(await sagas.retry(shop, service, saga_id, reason, key), as_json)

    client.run(home, offset, call)


@app.command()
def skip(
    saga_id: SagaArgument,
    reason: ReasonOption,
    step: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default="the current one",
            help="The step that was seen to by other means.",
        ),
    ] = "",
    service: ServiceOption = "orders",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the current step, which is parked, for done without calling it.

    Exit code: 0 the saga goes on, 5 it is not parked, at another step, or the step cannot be
    skipped.
    """
    from shopctl import client, sagas

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        current = step or (await sagas.get(shop, service, saga_id)).saga.step
        saga = await sagas.skip(shop, service, saga_id, current, reason, key)
        sagas.print_line(saga, as_json)

    client.run(home, offset, call)


@app.command()
def compensate(
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a saga back: what was done is undone in the background.

    Exit code: 0 it is being undone, 5 it is too late.
    """
    from shopctl import client, sagas

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        sagas.print_line(await sagas.compensate(shop, service, saga_id, reason, key), as_json)

    client.run(home, offset, call)


@app.command()
def abandon(
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a saga up as it stands. What it has left behind is yours to settle.

    Exit code: 0 nothing more happens to it, 5 it has ended before.
    """
    from shopctl import client, sagas

    key = key or str(uuid.uuid4())

    async def call(shop: "Shop") -> None:
        sagas.print_line(await sagas.abandon(shop, service, saga_id, reason, key), as_json)

    client.run(home, offset, call)
