"""Brings a database to the shape the code needs.

Each component (`runtime`, `orders`, ...) has an append-only list of statements; its position in the
list, from 1, is a statement's number. Numbers, checksums and times are kept in
`schema_migrations`. During a rolling update two versions of the code share one database, so
statements may only add what the version before can live with.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from accord_runtime.database import Database, DatabaseError, Tx

_LEDGER = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        component TEXT NOT NULL,
        number BIGINT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (component, number)
    )
"""


class MigrationChanged(DatabaseError):
    """A statement was edited after it had been applied; append a new one instead."""


def checksum(statement: str) -> str:
    """SHA-256 of the statement in hexadecimal; white space may be laid out anew."""
    return hashlib.sha256(" ".join(statement.split()).encode()).hexdigest()


async def migrate(
    db: Database,
    component: str,
    statements: Sequence[str],
    clock: Callable[[], float] = time.time,
) -> None:
    """Apply the statements of a component that have not been applied, all of them or none.

    Safe when several replicas start at once: one applies them, the others wait. A database that
    is newer than the code is accepted. Write types as TEXT, BIGINT, BLOB and DOUBLE PRECISION.
    Statements are never changed or reordered, only appended to; lists of different components are
    independent.

    Raises:
        MigrationChanged: the text of an applied statement is not what it was.
        DatabaseError: a statement failed; nothing was applied.
    """

    def apply(tx: Tx) -> None:
        if tx.postgres:
            # Waiting for another replica's migration may take longer than a statement should.
            tx.execute("SET LOCAL statement_timeout = 0")
            tx.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema()), 0)")
        tx.execute(_LEDGER)
        applied = {
            row["number"]: row["checksum"]
            for row in tx.all(
                "SELECT number, checksum FROM schema_migrations WHERE component = :component",
                {"component": component},
            )
        }
        for number, statement in enumerate(statements, start=1):
            digest = checksum(statement)
            if number not in applied:
                tx.execute(statement)
                values = {"component": component, "number": number, "checksum": digest}
                tx.insert("schema_migrations", {**values, "applied_at": clock()})
            elif applied[number] != digest:
                raise MigrationChanged(
                    f"{component} migration {number} differs from the one applied"
                )

    await db.write(apply)
