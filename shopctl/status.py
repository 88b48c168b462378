"""`shopctl status`."""

import asyncio
import json

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, wants_colour, width
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show each process of the shop: state, address, pid, uptime, restarts and memory.

    Exit code: 0 all are serving, 3 something is not, 4 nothing runs. Processes that were left
    out with --except are shown and do not count.
    """
    from shopctl import lock, runfile, table
    from shopctl.health import State
    from shopctl.survey import survey

    run = runfile.read(home)
    if lock.holder(home) is None or run is None:
        raise CommandError(
            f"nothing runs in {home}; start the shop with: shopctl up", ExitCode.NOT_RUNNING
        )
    rows = asyncio.run(survey(run))
    serving = all(row.state is State.SERVING for row in rows if row.managed)
    if as_json:
        report = {
            "serving": serving,
            "offset": run.offset,
            "memory": table.total_memory(rows),
            "processes": table.as_json(rows),
        }
        typer.echo(json.dumps(report))
    else:
        typer.echo(table.render(rows, colour=wants_colour(), width=width()))
    if not serving:
        raise typer.Exit(ExitCode.NOT_SERVING)
