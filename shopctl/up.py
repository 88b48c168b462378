"""`shopctl up`."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from services.topology import BROKER
from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, OffsetOption
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopctl.program import Program


def up(
    home: HomeOption = DEFAULT_HOME,
    offset: OffsetOption = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not follow the logs; they are in files.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--except",
            metavar="NAME",
            help="Leave this one out, to run it yourself. May be repeated.",
        ),
    ] = None,
    database_url: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            show_envvar=True,
            help="postgresql://... for a schema per service; default is a file per service.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Start the shop: the broker and every service, in this terminal, until Ctrl-C.

    Children that die are started again. Ctrl-C lets everything finish what it is doing; a second
    one ends it at once. Logs are in HOME/logs.
    """
    from shopctl import broker, lock
    from shopctl.foreground import Foreground
    from shopctl.plan import make_plan

    home = home.resolve()
    plan = make_plan(
        home,
        offset=offset,
        left_out=[part for name in without or () for part in name.split(",") if part],
        database_url=database_url,
        nats_url=os.environ.get("NATS_URL", ""),
        inherited=os.environ,
    )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with lock.held(home):
            _check_ports(plan.programs, offset)
            if any(program.name == BROKER for program in plan.programs):
                broker.write_config(home, offset)
            foreground = Foreground(home, offset, plan, quiet=quiet, as_json=as_json)
            code = asyncio.run(foreground.run())
    except lock.LockHeldError as error:
        raise CommandError(
            f"the shop runs already in {home} (process {error.pid}); see: shopctl status, stop "
            "it: shopctl down, or start another: shopctl up --home .mesh2 --port-offset 100",
            ExitCode.IN_USE,
        ) from None
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _check_ports(programs: "Sequence[Program]", offset: int) -> None:
    from shopctl import ports

    taken = ports.taken(programs)
    if taken:
        which = ", ".join(f"{port.port} ({port.program}, {port.purpose})" for port in taken)
        raise CommandError(
            f"port in use: {which}; end what listens there, or move the whole shop: "
            f"shopctl up --port-offset {offset + 100}",
            ExitCode.IN_USE,
        )
