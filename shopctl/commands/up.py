"""`shopctl up`."""

import asyncio
import os
from typing import Annotated

import typer

from accord_runtime import state_folder
from services.topology import BROKER
from shopctl.errors import CommandError, ExitCode
from shopctl.options import (
    DEFAULT_HOME,
    DatabaseUrlOption,
    HomeOption,
    JsonOption,
    OffsetOption,
)
from shopctl.supervisor import broker, programs, state
from shopctl.supervisor.foreground import Foreground

app = typer.Typer()


@app.command()
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
    database_url: DatabaseUrlOption = "",
    as_json: JsonOption = False,
) -> None:
    """Start the shop: the broker and every service, in this terminal, until Ctrl-C.

    Children that die are started again. Ctrl-C lets everything finish what it is doing; a second
    one ends it at once. Logs are in HOME/logs.
    """
    home = home.resolve()
    selection = programs.select(
        home,
        offset=offset,
        left_out=[part for name in without or () for part in name.split(",") if part],
        database_url=database_url,
        nats_url=os.environ.get("NATS_URL", ""),
        inherited=os.environ,
    )
    try:
        state_folder.prepare(home)
        with state.locked(home):
            if taken := programs.taken_ports(selection.programs):
                raise CommandError(
                    f"port in use: {', '.join(taken)}; end what listens there, or move the whole "
                    f"shop: shopctl up --port-offset {offset % 800 + 100}",
                    ExitCode.IN_USE,
                )
            if any(program.name == BROKER for program in selection.programs):
                broker.write_config(home, offset)
            foreground = Foreground(home, offset, selection, quiet=quiet, as_json=as_json)
            code = asyncio.run(foreground.run())
    except state.LockHeldError as error:
        raise CommandError(
            f"the shop runs already in {home} (process {error.pid}); see: shopctl status, stop "
            "it: shopctl down, or start another: shopctl up --home .mesh2 --port-offset 100",
            ExitCode.IN_USE,
        ) from None
    except PermissionError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    if code is not ExitCode.OK:
        raise typer.Exit(code)
