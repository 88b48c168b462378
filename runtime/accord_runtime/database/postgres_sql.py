"""PostgreSQL as the common subset of SQL is said to it: parameters, types, errors, transactions."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from accord_runtime.database.interface import (
    Conflict,
    DatabaseCorrupt,
    DatabaseError,
    DatabaseUnavailable,
    Params,
    Row,
    Tx,
)

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                    # text
    | "(?:[^"]|"")*"                    # quoted name
    | --[^\n]* | /\*.*?\*/              # comments
    | ::                                # cast
    | :(?P<name>[A-Za-z_]\w*)
    | (?P<blob>\bBLOB\b)
    | (?P<percent>%)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def translate(sql: str) -> bytes:
    """SQL with `:name` parameters as psycopg takes it; the type BLOB becomes BYTEA in DDL.

    Quoted text, comments and `::casts` stay as they are, except that a `%` is always doubled.
    """
    ddl = sql.lstrip()[:6].upper() in ("CREATE", "ALTER ")

    def replacement(match: re.Match[str]) -> str:
        if name := match["name"]:
            return f"%({name})s"
        if match["blob"] and ddl:
            return "BYTEA"
        return match[0].replace("%", "%%")

    return _TOKEN.sub(replacement, sql).encode()


class NumberLoader(Loader):
    """SUM and AVG of BIGINT are NUMERIC: loaded as int or float, as SQLite gives them."""

    def load(self, data: Buffer) -> int | float:
        """A number from its text."""
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


def translated(error: psycopg.Error) -> DatabaseError:
    """What a caller gets for an error of the driver."""
    if isinstance(error, psycopg.errors.UniqueViolation):
        return Conflict(str(error))
    if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted):
        return DatabaseCorrupt(str(error))
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(str(error))
    return DatabaseError(str(error))


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Whether the connection is of no more use."""
    if connection.closed:
        return True
    # 57P01..3: the server is going away (the socket may not show it yet); 08: connection errors.
    return (error.sqlstate or "").startswith(("57P0", "08"))


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same work may succeed when it is begun again on this connection."""
    if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
        return True
    # Another replica has migrated a table; a rollback makes psycopg forget its prepared statements.
    return isinstance(error, psycopg.errors.FeatureNotSupported) and "cached plan" in str(error)


class PostgresTx(Tx):
    """A transaction on a cursor."""

    __slots__ = ("_cursor",)

    postgres: ClassVar[bool] = True
    for_update: ClassVar[str] = " FOR UPDATE"
    skip_locked: ClassVar[str] = " FOR UPDATE SKIP LOCKED"

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        super().__init__()
        self._cursor = cursor

    @property
    def cause(self) -> psycopg.Error | None:
        """The driver's error that failed this transaction, even if its function hid it."""
        cause = self._failure.__cause__ if self._failure is not None else None
        return cause if isinstance(cause, psycopg.Error) else None

    def _run(self, sql: str, params: Params) -> tuple[int, list[Row]]:
        cursor = self._cursor
        try:
            cursor.execute(translate(sql), params)
            values = cursor.fetchall() if cursor.description else ()
        except psycopg.Error as error:
            raise translated(error) from error
        columns = [column.name for column in cursor.description or ()]
        return max(cursor.rowcount, 0), [Row(zip(columns, each, strict=True)) for each in values]
