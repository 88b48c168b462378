"""A service's database, copied and put back as an operator does it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.sql import SQL, Composed, Identifier


def backup(database: Path, copy: Path) -> None:
    """A copy of a database that is in use, as `.backup` of the sqlite3 shell makes it."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def restore(database: Path, copy: Path) -> None:
    """Put a copy in the place of a database that nobody uses."""
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(copy, database)


class Backup:
    """What the database of a service holds now, on either backend, to be put back later.

    Args:
        home: the state folder, which has the file unless there is a server.
        service: its name.
        database_url: the PostgreSQL server; empty for SQLite.
    """

    def __init__(self, home: Path, service: str, database_url: str) -> None:
        self._database, self._copy = home / f"{service}.db", home / f"{service}.copy"
        self._service, self._url = service, database_url
        if not database_url:
            backup(self._database, self._copy)
            return
        with psycopg.connect(database_url) as connection:
            connection.execute(self._sql("CREATE SCHEMA {copy}"))
            for table in self._tables(connection):
                sql = "CREATE TABLE {copy}.{table} AS TABLE {schema}.{table}"
                connection.execute(self._sql(sql, table))

    def put_back(self) -> None:
        """Restore it; the service is down."""
        if not self._url:
            restore(self._database, self._copy)
            return
        with psycopg.connect(self._url) as connection:
            for table in self._tables(connection):
                connection.execute(self._sql("TRUNCATE {schema}.{table}", table))
                sql = "INSERT INTO {schema}.{table} TABLE {copy}.{table}"
                connection.execute(self._sql(sql, table))

    def _tables(self, connection: psycopg.Connection) -> list[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        return [table for (table,) in connection.execute(sql, [self._service])]

    def _sql(self, text: LiteralString, table: str = "") -> Composed:
        schema, copy = Identifier(self._service), Identifier(f"{self._service}_copy")
        return SQL(text).format(schema=schema, copy=copy, table=Identifier(table))
