"""Databases that are schemas of a PostgreSQL server, by its own pg_dump and pg_restore."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import psycopg
from psycopg import pq
from psycopg.sql import SQL, Identifier

from shopctl.backup.archive import APPLIED, POSITION, State
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor.programs import SERVICES


class PostgresStore:
    """As `SqliteStore`, whose docstrings tell the same of these methods."""

    backend = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url

    def services(self) -> list[str]:
        """Those that have a schema."""
        with self._connected() as server:
            found = {name for (name,) in server.execute("SELECT nspname FROM pg_namespace")}
        return [name for name in SERVICES if name in found]

    def copy(self, service: str, file: Path) -> State:
        """What is said of it is of the same snapshot as the copy."""
        with self._connected() as server, server.transaction():
            server.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            [(snapshot,)] = server.execute("SELECT pg_export_snapshot()")
            server.execute(SQL("SET LOCAL search_path = {}").format(Identifier(service)))
            [(position,)] = server.execute(POSITION).fetchall()
            migrations: dict[str, int] = dict(server.execute(APPLIED).fetchall())
            self._run(
                *("pg_dump", "--format=custom", f'--schema="{service}"', f"--snapshot={snapshot}"),
                *("--no-owner", "--no-privileges", f"--file={file}"),
            )
        return State(position, migrations)

    @contextmanager
    def unused(self, service: str) -> Iterator[None]:
        """A service counts as running for 2.5 s after it was killed."""
        with self._connected() as server:
            # A service that starts waits for this lock before it makes its schema.
            server.execute("SELECT pg_advisory_lock(hashtext(%s))", [service])
            alive = SQL("SELECT 1 FROM {}.replica WHERE alive_until > extract(epoch FROM now())")
            if (
                service in self.services()
                and server.execute(alive.format(Identifier(service))).fetchone()
            ):
                raise CommandError(f"{service} runs; stop it first", ExitCode.IN_USE)
            yield

    def put_back(self, service: str, file: Path, mark: str) -> str:
        """All is as before if it cannot be done."""
        aside = f"{service}_{mark}"
        there = service in self.services()
        rename = SQL("ALTER SCHEMA {} RENAME TO {}")
        with self._connected() as server:
            if there:
                server.execute(rename.format(Identifier(service), Identifier(aside)))
            try:
                options = ("--single-transaction", "--exit-on-error", "--no-owner", "--dbname=")
                self._run("pg_restore", *options, str(file))
            except CommandError:
                if there:
                    server.execute(rename.format(Identifier(aside), Identifier(service)))
                raise
        return f"schema {aside}" if there else ""

    def _connected(self) -> psycopg.Connection:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=5)

    def _run(self, program: str, *arguments: str) -> None:
        """Run a client of the server, which has the URL from its environment: `ps` shows it not."""
        if which(program) is None:
            raise CommandError(f"{program} is not on the PATH: install the clients of PostgreSQL")
        options = {
            option.envvar.decode(): option.val.decode()
            for option in pq.Conninfo.parse(self._url.encode())
            if option.envvar and option.val
        }
        done = subprocess.run(
            [program, "--no-password", *arguments],
            env={**os.environ, **options},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise CommandError(f"{program}: {said.removeprefix(f'{program}: ')}")
