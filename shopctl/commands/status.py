"""`shopctl status`."""

import asyncio
import json

import typer

from shopctl.errors import CommandError, ExitCode
from shopctl.options import DEFAULT_HOME, HomeOption, JsonOption
from shopctl.supervisor.health import State
from shopctl.supervisor.state import lock_holder, read_run
from shopctl.supervisor.status import rows_as_json, survey, table, total_memory
from shopctl.terminal import wants_colour, width

app = typer.Typer()


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show each process of the shop: state, address, pid, uptime, restarts and memory.

    Exit code: 0 all are serving, 3 something is not, 4 nothing runs. Processes that were left
    out with --except are shown and do not count.
    """
    run = read_run(home)
    if lock_holder(home) is None or run is None:
        raise CommandError(
            f"nothing runs in {home}; start the shop with: shopctl up", ExitCode.NOT_RUNNING
        )
    rows = asyncio.run(survey(run, home))
    serving = all(row.state is State.SERVING for row in rows if row.managed)
    if as_json:
        report = {
            "serving": serving,
            "offset": run.offset,
            "memory": total_memory(rows),
            "processes": rows_as_json(rows),
        }
        typer.echo(json.dumps(report))
    else:
        typer.echo(table(rows, colour=wants_colour(), width=width()))
    if not serving:
        raise typer.Exit(ExitCode.NOT_SERVING)
