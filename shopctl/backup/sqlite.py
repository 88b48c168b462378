"""Databases in files, in the shop's state folder."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shopctl.backup.archive import APPLIED, POSITION, State
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor import state
from shopctl.supervisor.programs import SERVICES


class SqliteStore:
    """The databases of the services of one shop. Every method may raise CommandError."""

    backend = "sqlite"

    def __init__(self, home: Path) -> None:
        self._home = home

    def services(self) -> list[str]:
        """Those that have a database."""
        return [name for name in SERVICES if self._database(name).exists()]

    def copy(self, service: str, file: Path) -> State:
        """Write a copy of a database that may be in use, as it was at one moment.

        In one step, which is one snapshot of the WAL: of several, each write of the service would
        start it anew. Neither readers nor the writer wait for it.
        """
        source = f"{self._database(service).absolute().as_uri()}?mode=ro"
        try:
            with (
                closing(sqlite3.connect(source, uri=True)) as used,
                closing(sqlite3.connect(file)) as copied,
            ):
                used.backup(copied)
                # One file, whatever opens it later.
                copied.execute("PRAGMA journal_mode = DELETE")
                [(found,)] = copied.execute("PRAGMA quick_check(1)")
                if found != "ok":
                    raise sqlite3.DatabaseError(f"it is damaged: {' '.join(found.split())}")
                [(position,)] = copied.execute(POSITION)
                return State(position, dict(copied.execute(APPLIED).fetchall()))
        except sqlite3.Error as error:
            raise CommandError(f"cannot copy the database of {service}: {error}") from None

    @contextmanager
    def unused(self, service: str) -> Iterator[None]:
        """Keep the service from starting for the length of the block; refuse if it runs."""
        try:
            with state.holding(Path(f"{self._database(service)}.lock")):
                yield
        except state.LockHeldError as error:
            raise CommandError(
                f"{service} runs (process {error.pid}); stop it first", ExitCode.IN_USE
            ) from None

    def put_back(self, service: str, file: Path, mark: str) -> str:
        """Put a copy, on the same disk, in the place of a database that is `unused`.

        Returns where is now what was there, with `mark` in its name; empty if nothing was. There
        is a database at every moment: a service that found none would begin with an empty one.
        """
        database = self._database(service)
        aside = database.with_name(f"{database.name}.{mark}")
        there = database.exists()
        log = Path(f"{database}-wal")
        try:
            if there:
                os.link(database, aside)
            if log.exists():
                os.link(log, f"{aside}-wal")
                log.unlink()
            Path(f"{database}-shm").unlink(missing_ok=True)
            os.replace(file, database)
        except OSError as error:
            raise CommandError(f"cannot replace {database}: {error.strerror}") from None
        return str(aside) if there else ""

    def _database(self, service: str) -> Path:
        return self._home / f"{service}.db"
