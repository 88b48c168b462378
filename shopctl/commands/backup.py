"""`shopctl backup`."""

import json
import os
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from shopctl.backup import archive
from shopctl.backup.sqlite import SqliteStore
from shopctl.errors import CommandError, ExitCode
from shopctl.options import (
    DEFAULT_HOME,
    AnyServiceOption,
    DatabaseUrlOption,
    HomeOption,
    JsonOption,
)
from shopctl.terminal import is_terminal

if TYPE_CHECKING:
    from shopctl.backup.postgres import PostgresStore

app = typer.Typer()

FIRST: Final = ("notifications", "analytics", "accounting", "orders")
"""Whoever takes from others is copied before them: a copy that is ahead of its source would have
seen events that never happened, one that is behind takes them again."""


def store_of(home: Path, database_url: str) -> "SqliteStore | PostgresStore":
    """Where the databases of the shop are."""
    if database_url:
        from accord_runtime.database import DatabaseError
        from accord_runtime.database.postgres_parameters import (
            parameters,  # psycopg takes long to import
        )
        from shopctl.backup.postgres import PostgresStore

        try:
            parameters(database_url)
        except DatabaseError as error:
            raise CommandError(str(error), ExitCode.USAGE) from None
        return PostgresStore(database_url)
    return SqliteStore(home)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive, to be made.")],
    service: AnyServiceOption = None,
    home: HomeOption = DEFAULT_HOME,
    database_url: DatabaseUrlOption = "",
    as_json: JsonOption = False,
) -> None:
    """Copy the databases of all services into one archive, while the shop runs.

    Each copy is of one moment, of its own. The archive holds card tokens and addresses: it is
    readable by you alone (0600). PostgreSQL needs pg_dump.
    """
    if file.exists():
        raise CommandError(f"{file} is there already; give it another name", ExitCode.USAGE)
    store = store_of(home, database_url)
    names = store.services()
    names = [name for name in FIRST if name in names] + [n for n in names if n not in FIRST]
    if service:
        names = [name for name in names if name == service]
    if not names:
        where = "on the server" if database_url else f"in {home}"
        raise CommandError(f"there is no database of {service or 'any service'} {where}")
    os.umask(0o077)
    show = Console(stderr=True).status if is_terminal() and not as_json else nullcontext
    copies = []
    try:
        # Beside the archive: there is room for it there, and it is moved there at once.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as folder:
            for name in names:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                with show(f"copying {name}"):
                    state = store.copy(name, copied := Path(folder) / name)
                    size, sha256 = copied.stat().st_size, archive.digest(copied)
                copy = archive.Copy(
                    name, store.backend, now, **asdict(state), size=size, sha256=sha256
                )
                copies.append(copy)
                said = f"{name:13}  {size:>12,} bytes, at event {copy.position}"
                typer.echo(json.dumps(asdict(copy)) if as_json else said)
            with show("packing"):
                archive.write(file, Path(folder), copies)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None
