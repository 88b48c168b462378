"""What only SQLite has: group commit, and one process per file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from accord_runtime.database import (
    Database,
    DatabaseCorrupt,
    DatabaseError,
    DatabaseLocked,
    DatabaseUnavailable,
    Tx,
    open_database,
)
from accord_runtime.database import sqlite as module
from accord_runtime.database.worker_threads import Job
from tests.runtime.database.test_database import PAIRS, pair, whole_pairs


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/folder/test.db"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    opened = await open_database(url, "test")
    await opened.write(lambda tx: tx.execute(PAIRS))
    yield opened
    await opened.close()


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of writes in each commit."""
    sizes: list[int] = []
    run = module._Writer.run

    def counted(self: module._Writer, jobs: Sequence[Job]) -> None:
        sizes.append(len(jobs))
        run(self, jobs)

    monkeypatch.setattr(module._Writer, "run", counted)
    return sizes


async def hold(db: Database) -> tuple[threading.Event, asyncio.Task[object]]:
    """Keep the writer busy until the event is set, so that what follows is one group."""
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def fn(tx: Tx) -> None:
        loop.call_soon_threadsafe(started.set)
        assert go.wait(10)

    task: asyncio.Task[object] = asyncio.create_task(db.write(fn))
    await started.wait()
    return go, task


async def test_concurrent_writes_share_commits(db: Database, groups: list[int]) -> None:
    """Writes that wait for a commit land together in the next, at most GROUP of them."""
    go, held = await hold(db)
    writes = [asyncio.create_task(db.write(pair(number))) for number in range(600)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*writes) == list(range(600))
    await held
    assert groups == [1, 256, 256, 88]
    assert await whole_pairs(db) == set(range(600))


async def test_a_lone_write_does_not_wait_for_company(db: Database, groups: list[int]) -> None:
    """Writes that come one after another are committed one by one."""
    for number in range(5):
        await db.write(pair(number))
    assert groups == [1] * 5


async def test_a_deferred_constraint_fails_its_own_write_only(db: Database) -> None:
    """A foreign key that fails at COMMIT takes down the write it belongs to and no other."""

    def create(tx: Tx) -> None:
        tx.execute("CREATE TABLE parent (id BIGINT PRIMARY KEY)")
        tx.execute(
            "CREATE TABLE child (id BIGINT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    await db.write(create)
    go, held = await hold(db)
    writes = [
        asyncio.create_task(db.write(pair(1))),
        asyncio.create_task(db.write(lambda tx: tx.execute("INSERT INTO child VALUES (9)"))),
        asyncio.create_task(db.write(pair(2))),
    ]
    await asyncio.sleep(0)
    go.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await held
    assert outcomes[::2] == [1, 2]
    assert type(outcomes[1]) is DatabaseError
    assert await whole_pairs(db) == {1, 2}
    assert await db.read(lambda tx: tx.all("SELECT * FROM child")) == []


async def test_a_lost_group_is_reported_to_all(db: Database) -> None:
    """If SQLite drops the whole transaction, nobody in the group is told that his write landed."""
    called: list[int] = []

    def first(tx: Tx) -> None:
        tx.after_commit(lambda: called.append(1))
        pair(1)(tx)

    def drop(tx: Tx) -> None:
        # As a full disk would do it.
        tx.execute("INSERT OR ROLLBACK INTO pair VALUES (5, 1), (5, 1)")

    go, held = await hold(db)
    writes = [asyncio.create_task(db.write(fn)) for fn in (first, drop, pair(2))]
    await asyncio.sleep(0)
    go.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await held
    assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
    assert isinstance(outcomes[0], DatabaseUnavailable)
    assert called == []
    assert await db.write(pair(3)) == 3
    assert await whole_pairs(db) == {3}


async def test_is_set_to_survive_a_power_cut(db: Database) -> None:
    """The writer runs in WAL mode with an fsync per commit, and keeps foreign keys."""
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
        row = await db.write(lambda tx, name=pragma: tx.one(f"PRAGMA {name}"))  # type: ignore[misc]
        assert list(row.values()) == [value]


async def test_a_file_belongs_to_one_process(db: Database, url: str) -> None:
    """A second process is told who owns the file; so is a second opener in this process."""
    program = (
        "import asyncio, sys; from accord_runtime.database import open_database;"
        "asyncio.run(open_database(sys.argv[1], 'test'))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, url), stderr=asyncio.subprocess.PIPE
    )
    message = (await process.communicate())[1].decode()
    assert process.returncode == 1
    assert "DatabaseLocked" in message
    assert f"in use by process {os.getpid()};" in message
    with pytest.raises(DatabaseLocked):
        await open_database(url, "test")
    await db.write(pair(1))
    await db.close()
    again = await open_database(url, "test")
    assert await whole_pairs(again) == {1}
    await again.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Opening something else fails at once and gives the lock back."""
    file = tmp_path / "other.db"
    file.write_text("This is not a database, and it is longer than a header. " * 4)
    for _ in range(2):
        with pytest.raises(DatabaseCorrupt, match="not a database"):
            await open_database(f"sqlite:///{file}", "test")
    with pytest.raises(DatabaseUnavailable, match="cannot open"):
        await open_database(f"sqlite:///{file}/below.db", "test")


async def test_another_program_may_look_in(db: Database, url: str) -> None:
    """While another program has the file locked a write fails as unavailable, then works again."""
    await db.write(lambda tx: tx.one("PRAGMA busy_timeout = 20"))
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked"):
        await db.write(pair(1))
    other.execute("ROLLBACK")
    other.close()
    await db.write(pair(2))
    assert await whole_pairs(db) == {2}


async def test_does_not_load_the_postgresql_driver(url: str) -> None:
    """A process on SQLite does not pay for psycopg."""
    program = (
        "import asyncio, sys; from accord_runtime.database import open_database;"
        "from accord_runtime.database import migrations;"
        "asyncio.run(open_database(sys.argv[1], 'test')); sys.exit('psycopg' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url)
    assert await process.wait() == 0
