"""Migrations are applied once, in order, by whoever comes first."""

from __future__ import annotations

import asyncio

import pytest

from accord_runtime.database import Database, DatabaseError, open_database
from accord_runtime.database.migrations import MigrationChanged, migrate

CREATE = "CREATE TABLE thing (id TEXT PRIMARY KEY, body BLOB NOT NULL, due DOUBLE PRECISION)"
ADD = "ALTER TABLE thing ADD COLUMN note TEXT NOT NULL DEFAULT ''"
FILL = "INSERT INTO thing (id, body) VALUES ('first', '')"


async def ledger(db: Database) -> list[tuple[str, int]]:
    rows = await db.read(
        lambda tx: tx.all("SELECT component, number FROM schema_migrations ORDER BY 1, 2")
    )
    return [(row["component"], row["number"]) for row in rows]


async def test_applies_what_is_missing_in_order(database: Database) -> None:
    """A longer list applies only its new statements; the same list again applies nothing."""
    await migrate(database, "things", [CREATE])
    await migrate(database, "things", [CREATE, ADD, FILL], clock=lambda: 12.5)
    await migrate(database, "things", [CREATE, ADD, FILL])
    assert await ledger(database) == [("things", 1), ("things", 2), ("things", 3)]
    row = await database.read(
        lambda tx: tx.one("SELECT applied_at FROM schema_migrations WHERE number = 3")
    )
    assert row is not None
    assert row["applied_at"] == 12.5
    things = await database.read(lambda tx: tx.all("SELECT id, note FROM thing"))
    assert things == [{"id": "first", "note": ""}]


async def test_components_are_independent(database: Database) -> None:
    """Two components number their statements separately in one database."""
    await migrate(database, "runtime", ["CREATE TABLE a (id TEXT PRIMARY KEY)"])
    await migrate(database, "orders", ["CREATE TABLE b (id TEXT PRIMARY KEY)"])
    assert await ledger(database) == [("orders", 1), ("runtime", 1)]


async def test_applies_all_or_none(database: Database) -> None:
    """When a statement fails, those before it are undone too, and a corrected list applies."""
    with pytest.raises(DatabaseError):
        await migrate(database, "things", [CREATE, "ALTER TABLE nothing ADD COLUMN a TEXT"])
    await migrate(database, "things", [CREATE, ADD])
    assert await ledger(database) == [("things", 1), ("things", 2)]


async def test_refuses_a_changed_statement(database: Database) -> None:
    """An applied statement whose text has changed stops the start and applies nothing new."""
    await migrate(database, "things", [CREATE])
    with pytest.raises(MigrationChanged, match="things migration 1"):
        await migrate(database, "things", [CREATE.replace("BLOB", "TEXT"), ADD])
    assert await ledger(database) == [("things", 1)]


async def test_layout_may_change(database: Database) -> None:
    """Indenting a statement differently does not count as a change."""
    await migrate(database, "things", [CREATE])
    await migrate(database, "things", [CREATE.replace(" ", "\n    ")])
    assert await ledger(database) == [("things", 1)]


async def test_accepts_a_newer_database(database: Database) -> None:
    """The version before runs on a database that the next version has already extended."""
    await migrate(database, "things", [CREATE, ADD])
    await migrate(database, "things", [CREATE])
    assert await ledger(database) == [("things", 1), ("things", 2)]


async def test_many_start_at_once_in_one_process(database: Database) -> None:
    """Concurrent calls apply each statement once."""
    await asyncio.gather(*(migrate(database, "things", [CREATE, ADD, FILL]) for _ in range(5)))
    assert len(await ledger(database)) == 3


async def test_two_replicas_start_at_once(postgres_url: str, service: str) -> None:
    """Replicas that open a new database and migrate it at the same moment both succeed."""

    async def replica() -> Database:
        opened = await open_database(postgres_url, service)
        await migrate(opened, "runtime", ["CREATE TABLE a (id TEXT PRIMARY KEY)"])
        await migrate(opened, "things", [CREATE, ADD, FILL])
        return opened

    replicas = await asyncio.gather(*(replica() for _ in range(4)))
    assert len(await ledger(replicas[0])) == 4
    for each in replicas:
        await each.close()
