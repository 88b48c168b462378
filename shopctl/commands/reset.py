"""`shopctl reset`."""

import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from shopctl.errors import CommandError, ExitCode
from shopctl.options import DEFAULT_HOME, HomeOption
from shopctl.supervisor import state

app = typer.Typer()

MARKS: Final = ("lock", "run.json", "nats", "nats.token", "logs", "certs", "edge", "console")
"""A folder with none of these was not made by `shopctl up`."""


@app.command()
def reset(
    home: HomeOption = DEFAULT_HOME,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the state of the shop: databases, the broker's messages, logs.

    A PostgreSQL database is not touched. Refuses while the shop runs.
    """
    if not home.is_dir():
        typer.echo(f"{home} does not exist: nothing to delete")
        return
    entries = {entry.name for entry in home.iterdir()}
    if entries and entries.isdisjoint(MARKS):
        raise CommandError(f"{home} was not made by shopctl up; delete it yourself if you mean it")
    try:
        with state.locked(home):
            _check_databases(home)
            if not yes:
                typer.confirm(f"Delete everything in {home.resolve()}?", abort=True)
            for entry in home.iterdir():
                if entry.name != state.LOCK_FILE:
                    _delete(entry)
            (home / state.LOCK_FILE).unlink()  # last: until then nobody else can start here
            _delete(home)
    except state.LockHeldError as error:
        raise CommandError(
            f"the shop runs (process {error.pid}); stop it first: shopctl down", ExitCode.IN_USE
        ) from None
    typer.echo(f"deleted {home}")


def _check_databases(home: Path) -> None:
    """A service that was left out and started by hand locks its database too."""
    for path in home.glob("*.db.lock"):
        if (pid := state.lock_holder_of(path)) is not None:
            raise CommandError(
                f"process {pid} still uses {path.stem}; end it first", ExitCode.IN_USE
            )


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
