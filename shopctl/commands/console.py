"""`shopctl console`."""

import getpass
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from services import topology
from services.console.access import make_link
from shopctl.client import running_offset
from shopctl.errors import CommandError, ExitCode
from shopctl.options import DEFAULT_HOME, HomeOption, ShopOffsetOption

app = typer.Typer()


@app.command()
def console(
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the link, and open no browser.")
    ] = False,
) -> None:
    """Open the console in a browser, by a link that logs you in as operator.

    The link works once, on this host, within ten minutes; the console's owner alone can make one.
    """
    link = link_to(home, running_offset(home, offset) or 0)
    if not link:
        raise CommandError(
            f"no console has been started in {home}; start the shop with: make up",
            ExitCode.NOT_RUNNING,
        )
    if only_print or not webbrowser.open(link):
        typer.echo(link)


def link_to(home: Path, offset: int) -> str:
    """Where the console of a shop is, and a login by it; empty: it has none."""
    try:
        secret = make_link(home, getpass.getuser())
    except (OSError, KeyError):  # no console, or a user without a name
        return ""
    return f"http://{topology.address(topology.CONSOLE, offset)}/console/login?link={secret}"
