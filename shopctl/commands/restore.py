"""`shopctl restore`."""

import json
import os
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from accord_runtime import state_folder
from shopctl.backup import archive
from shopctl.commands.backup import store_of
from shopctl.errors import CommandError
from shopctl.options import (
    DEFAULT_HOME,
    AnyServiceOption,
    DatabaseUrlOption,
    HomeOption,
    JsonOption,
)

app = typer.Typer()


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of shopctl backup.")],
    service: AnyServiceOption = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseUrlOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put the databases of an archive in the place of those that are there, which are kept.

    Refuses while a service whose database it is runs, and changes nothing unless the whole archive
    is right. PostgreSQL needs pg_restore.
    """
    copies = [copy for copy in archive.read(file) if service in (None, copy.service)]
    if not copies:
        raise CommandError(f"{file} has no copy of {service or 'any service'}")
    store = store_of(home, database_url)
    for copy in copies:
        if copy.backend != store.backend:
            raise CommandError(
                f"{file} was made of {copy.backend}, the shop has its databases on {store.backend}"
                " (--database-url)"
            )
    os.umask(0o077)
    try:
        if not database_url:
            state_folder.prepare(home)
        # On the disk of the databases: a file is moved in the place of another at once.
        place = None if database_url else home
        with (
            ExitStack() as locks,
            tempfile.TemporaryDirectory(prefix=".restore-", dir=place) as folder,
        ):
            for copy in copies:
                locks.enter_context(store.unused(copy.service))
                archive.extract(file, copy, Path(folder) / copy.service)
            there = [copy for copy in copies if copy.service in store.services()]
            if there and not yes:
                names = ", ".join(f"{copy.service} by that of {copy.taken_at}" for copy in there)
                typer.confirm(f"Replace the database of {names}?", abort=True, err=True)
            mark = f"{datetime.now(UTC):%Y%m%dt%H%M%S%f}"
            for copy in copies:
                kept = store.put_back(copy.service, Path(folder) / copy.service, mark)
                said = f"{copy.service} restored, at event {copy.position}"
                said += kept and f"; what was there: {kept}"
                row = {"service": copy.service, "position": copy.position, "kept": kept}
                typer.echo(json.dumps(row) if as_json else said)
    except OSError as error:
        raise CommandError(f"cannot restore {file}: {error.strerror or error}") from None
