"""A service's own database: SQLite in one file, or a schema of a PostgreSQL server.

Domain code is written once, as small synchronous functions over a `Tx`:

    def take(tx: Tx) -> None:
        tx.execute("UPDATE stock SET free = free - :n WHERE sku = :sku", {"n": 2, "sku": sku})

    await database.write(take)
"""

from __future__ import annotations

import contextlib
import re

from accord_runtime.database.interface import CommitUnknown as CommitUnknown
from accord_runtime.database.interface import Conflict as Conflict
from accord_runtime.database.interface import Database as Database
from accord_runtime.database.interface import DatabaseCorrupt as DatabaseCorrupt
from accord_runtime.database.interface import DatabaseError as DatabaseError
from accord_runtime.database.interface import DatabaseLocked as DatabaseLocked
from accord_runtime.database.interface import DatabaseUnavailable as DatabaseUnavailable
from accord_runtime.database.interface import Lock as Lock
from accord_runtime.database.interface import Params as Params
from accord_runtime.database.interface import Row as Row
from accord_runtime.database.interface import Tx as Tx
from accord_runtime.database.interface import among as among


async def open_database(url: str, service: str) -> Database:
    """Open the database of a service, and create it if it is not there.

    Args:
        url: `sqlite:///relative/file.db`, `sqlite:////absolute/file.db`, or a `postgresql://` URL
            as libpq takes it. Missing folders of an SQLite file are created.
        service: lower-case name; on PostgreSQL the schema that holds the service's tables.

    Raises:
        DatabaseCorrupt: the file is damaged, or no database.
        DatabaseLocked: another process owns the SQLite file.
        DatabaseUnavailable: the file or the server cannot be reached.
        ValueError: the URL or the name is not usable.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", service):
        raise ValueError(f"{service!r} is not a lower-case name of at most 63 characters")
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
        from accord_runtime.database.sqlite import SqliteDatabase

        database: Database = SqliteDatabase(rest[1:], service)
    elif separator and scheme in ("postgresql", "postgres"):
        # Imported here because psycopg costs memory that a process on SQLite need not pay.
        from accord_runtime.database.postgres import PostgresDatabase

        database = PostgresDatabase(url, service)
    else:
        # The URL may hold a password, so only its scheme is named, if it has one.
        named = repr(scheme[:20]) if separator and scheme.isalnum() else "that is none"
        raise ValueError(f"expected sqlite:///<file> or postgresql://..., got scheme {named}")
    try:
        await database.write(database.prepare)
    except BaseException:
        with contextlib.suppress(Exception):
            await database.close()
        raise
    return database
