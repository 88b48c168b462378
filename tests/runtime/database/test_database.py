"""What both backends promise alike."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from accord_runtime.database import (
    Conflict,
    Database,
    DatabaseError,
    DatabaseUnavailable,
    Tx,
    open_database,
)
from accord_runtime.database import postgres as postgres_module
from accord_runtime.database import sqlite as sqlite_module

PAIRS = "CREATE TABLE pair (id BIGINT NOT NULL, half BIGINT NOT NULL, PRIMARY KEY (id, half))"


def pair(number: int) -> Callable[[Tx], int]:
    """A write of two rows that belong together."""

    def fn(tx: Tx) -> int:
        for half in (1, 2):
            tx.execute("INSERT INTO pair VALUES (:id, :half)", {"id": number, "half": half})
        return number

    return fn


async def whole_pairs(db: Database) -> set[int]:
    """The pairs that are there; fails if one is there by half."""
    rows = await db.read(lambda tx: tx.all("SELECT id, COUNT(*) AS n FROM pair GROUP BY id"))
    assert {row["n"] for row in rows} <= {2}
    return {row["id"] for row in rows}


@pytest.fixture
async def db(database: Database) -> Database:
    await database.write(lambda tx: tx.execute(PAIRS))
    return database


async def test_values_come_back_as_they_went_in(database: Database) -> None:
    """Text, 64-bit integers, bytes, doubles and NULL survive a round trip."""
    values = {
        "t": "naïve 'quoted' 100% :name ☃",
        "i": -(2**63),
        "b": bytes(range(256)),
        "d": 1_700_000_000.123456,
        "n": None,
    }

    def fill(tx: Tx) -> None:
        tx.execute("CREATE TABLE v (t TEXT, i BIGINT, b BLOB, d DOUBLE PRECISION, n TEXT)")
        tx.execute("INSERT INTO v VALUES (:t, :i, :b, :d, :n)", values)

    # SQLite has no BYTEA and PostgreSQL no BLOB: the type name is what gets translated.
    await database.write(fill)
    row = await database.read(lambda tx: tx.one("SELECT * FROM v WHERE d = :d", {"d": values["d"]}))
    assert row is not None
    assert dict(row) == values
    assert (row["t"], row["i"], row["b"]) == (values["t"], values["i"], values["b"])
    assert type(row["b"]) is bytes
    with pytest.raises(KeyError):
        _ = row["missing"]


async def test_sums_are_integers(db: Database) -> None:
    """SUM of BIGINT is an int and AVG a float, although PostgreSQL calls both NUMERIC."""
    await db.write(pair(1))
    row = await db.read(lambda tx: tx.one("SELECT SUM(half) AS s, AVG(half) AS a FROM pair"))
    assert row is not None
    assert (row["s"], type(row["s"]), row["a"], type(row["a"])) == (3, int, 1.5, float)


async def test_statements_report_rows(db: Database) -> None:
    """Counts, RETURNING and ON CONFLICT behave alike."""

    def work(tx: Tx) -> tuple[int, int, Any, Any]:
        upsert = (
            "INSERT INTO pair VALUES (:id, 1) ON CONFLICT (id, half)"
            " DO UPDATE SET id = excluded.id + 100 RETURNING id"
        )
        first = tx.one(upsert, {"id": 1})
        second = tx.one(upsert, {"id": 1})
        nothing = "INSERT INTO pair VALUES (101, 1) ON CONFLICT DO NOTHING RETURNING id"
        ignored = tx.execute(nothing)
        changed = tx.execute("UPDATE pair SET half = 2 WHERE id % 100 = :rest", {"rest": 1})
        return ignored, changed, first, second

    assert await db.write(work) == (0, 1, {"id": 1}, {"id": 101})
    assert await db.read(lambda tx: tx.one("SELECT id FROM pair WHERE id = 7")) is None
    assert await db.read(lambda tx: tx.all("SELECT 7 % 4 AS rest")) == [{"rest": 3}]


async def test_a_failing_write_does_not_disturb_the_others(db: Database) -> None:
    """Of many concurrent writes, those that raise leave nothing and all others land."""
    called: list[int] = []

    def work(number: int) -> Callable[[Tx], None]:
        def fn(tx: Tx) -> None:
            tx.after_commit(lambda: called.append(number))
            pair(number)(tx)
            if number % 7 == 0:
                raise LookupError(number)
            if number % 11 == 0:
                pair(number)(tx)

        return fn

    outcomes = await asyncio.gather(
        *(db.write(work(number)) for number in range(200)), return_exceptions=True
    )
    for number, outcome in enumerate(outcomes):
        if number % 7 == 0:
            assert isinstance(outcome, LookupError)
        elif number % 11 == 0:
            assert isinstance(outcome, Conflict)
        else:
            assert outcome is None
    landed = {number for number in range(200) if number % 7 and number % 11}
    assert await whole_pairs(db) == landed
    assert len(called) == len(landed)
    assert set(called) == landed


async def test_after_commit_runs_on_the_loop_with_the_write_visible(db: Database) -> None:
    """The callback runs in the event loop's thread, before the caller goes on, and can read."""
    seen: list[asyncio.Task[set[int]]] = []

    def fn(tx: Tx) -> None:
        tx.after_commit(lambda: seen.append(asyncio.ensure_future(whole_pairs(db))))
        pair(1)(tx)

    await db.write(fn)
    assert await seen[0] == {1}


async def test_a_failing_callback_harms_nobody(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises is logged; its caller still learns that the write is done."""

    def fn(tx: Tx) -> int:
        tx.after_commit(lambda: [][0])
        return pair(1)(tx)

    assert await db.write(fn) == 1
    assert "callback after commit failed" in caplog.text


async def test_a_caught_error_still_fails_the_transaction(db: Database) -> None:
    """Catching a statement's error inside the function does not make the rest commit."""
    await db.write(pair(1))

    def fn(tx: Tx) -> None:
        tx.execute("INSERT INTO pair VALUES (2, 2)")
        try:
            tx.execute("INSERT INTO pair VALUES (1, 1)")
        except Conflict:
            return

    with pytest.raises(Conflict):
        await db.write(fn)
    assert await whole_pairs(db) == {1}


async def test_only_taken_keys_are_conflicts(db: Database) -> None:
    """Primary and unique keys raise Conflict; other constraints and bad SQL a plain error."""

    def create(tx: Tx) -> None:
        tx.execute("CREATE TABLE k (a TEXT PRIMARY KEY, b TEXT UNIQUE, c TEXT CHECK (c <> ''))")
        tx.execute("INSERT INTO k VALUES ('a', 'b', 'c')")

    await db.write(create)
    for taken in ("('a', 'x', 'x')", "('x', 'b', 'x')"):
        with pytest.raises(Conflict):
            await db.write(lambda tx, v=taken: tx.execute(f"INSERT INTO k VALUES {v}"))  # type: ignore[misc]
    for wrong in (
        "INSERT INTO k VALUES ('x', 'x', '')",
        "INSERT INTO pair VALUES (1, NULL)",
        "INSERT INTO nowhere VALUES (1)",
        "SELEC 1",
        "SELECT :missing",
    ):
        with pytest.raises(DatabaseError) as caught:
            await db.write(lambda tx, sql=wrong: tx.execute(sql))  # type: ignore[misc]
        assert type(caught.value) is DatabaseError, wrong
        assert caught.value.__cause__ is not None


async def test_a_read_cannot_write(db: Database) -> None:
    """A write statement inside a read fails, and the database still works."""
    with pytest.raises(DatabaseError):
        await db.read(pair(1))
    await db.write(pair(2))
    assert await whole_pairs(db) == {2}


async def test_a_read_sees_one_snapshot(db: Database) -> None:
    """Two selects of one read agree although a write commits between them."""
    loop = asyncio.get_running_loop()
    started, written = asyncio.Event(), threading.Event()

    def fn(tx: Tx) -> list[int]:
        counts = []
        for wait in (True, False):
            row = tx.one("SELECT COUNT(*) AS n FROM pair")
            assert row is not None
            counts.append(row["n"])
            if wait:
                loop.call_soon_threadsafe(started.set)
                assert written.wait(10)
        return counts

    reading = asyncio.create_task(db.read(fn))
    await started.wait()
    await db.write(pair(1))
    written.set()
    assert await reading == [0, 0]
    assert await whole_pairs(db) == {1}


async def test_the_event_loop_goes_on_meanwhile(db: Database) -> None:
    """A transaction that blocks holds up its own thread only: the loop can still release it."""
    for method in (db.write, db.read):
        released = threading.Event()
        waiting = asyncio.create_task(method(lambda tx, r=released: r.wait(10)))  # type: ignore[misc]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(released.set)
        assert await waiting is True


async def test_cancelled_before_and_after_its_start(
    database_url: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled write that had started happens, one that had not does not, and others go on."""
    monkeypatch.setattr(postgres_module, "CONNECTIONS", 1)
    db = await open_database(database_url, service)
    await db.write(lambda tx: tx.execute(PAIRS))
    loop = asyncio.get_running_loop()
    started, go = asyncio.Event(), threading.Event()
    committed: list[int] = []

    def slow(tx: Tx) -> None:
        loop.call_soon_threadsafe(started.set)
        tx.after_commit(lambda: committed.append(1))
        pair(1)(tx)
        assert go.wait(10)

    running = asyncio.create_task(db.write(slow))
    await started.wait()
    queued = asyncio.create_task(db.write(pair(2)))
    third = asyncio.create_task(db.write(pair(3)))
    await asyncio.sleep(0)
    running.cancel()
    queued.cancel()
    await asyncio.wait([running, queued])
    go.set()
    assert await third == 3
    assert running.cancelled()
    assert queued.cancelled()
    assert await whole_pairs(db) == {1, 3}
    assert committed == [1]
    await db.close()


async def test_cancelled_at_any_moment(db: Database) -> None:
    """Whenever callers are cancelled, every write is there wholly or not at all."""
    chance = random.Random(1)
    tasks = [asyncio.create_task(db.write(pair(number))) for number in range(300)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        await asyncio.sleep(0)
    acknowledged = {task.result() for task in tasks if not task.cancelled()}
    assert acknowledged <= await whole_pairs(db)
    assert await db.write(pair(1000)) == 1000


async def test_the_queue_is_bounded(
    database_url: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers beyond the backlog wait outside the queue, and all are served in the end."""
    for module in (postgres_module, sqlite_module):
        monkeypatch.setattr(module, "BACKLOG", 3)
    db = await open_database(database_url, service)
    threads = db._writer if isinstance(db, sqlite_module.SqliteDatabase) else vars(db)["_threads"]
    go = threading.Event()
    tasks = [asyncio.create_task(db.write(lambda tx: go.wait(10))) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert threads._unfinished == 3
    go.set()
    assert await asyncio.gather(*tasks) == [True] * 20
    assert threads._unfinished == 0
    await db.close()


async def test_close_finishes_what_was_accepted(database_url: str, service: str) -> None:
    """Writes accepted before close are durable after it; later calls are refused."""
    db = await open_database(database_url, service)
    await db.write(lambda tx: tx.execute(PAIRS))
    tasks = [asyncio.create_task(db.write(pair(number))) for number in range(50)]
    await asyncio.sleep(0)
    await db.close()
    await db.close()
    assert await asyncio.gather(*tasks) == list(range(50))
    for method in (db.write, db.read):
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await method(pair(99))
    again = await open_database(database_url, service)
    assert await whole_pairs(again) == set(range(50))
    await again.close()


async def test_a_bare_next_does_not_hang_its_caller(db: Database) -> None:
    """StopIteration, which a future refuses, reaches the caller as RuntimeError."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await db.write(lambda tx: next(iter(())))
    assert await db.write(pair(1)) == 1


async def test_a_coroutine_is_refused(db: Database) -> None:
    """A transaction function that is async by mistake fails instead of doing nothing."""

    async def fn(tx: Tx) -> None:
        pair(1)(tx)

    with pytest.raises(TypeError, match="not a coroutine"):
        await db.write(fn)  # type: ignore[unused-coroutine]


async def test_a_transaction_ends_with_its_function(db: Database) -> None:
    """A Tx that was kept cannot write into somebody else's transaction."""
    kept = await db.write(lambda tx: tx)
    with pytest.raises(DatabaseError, match="over"):
        kept.execute("INSERT INTO pair VALUES (1, 1)")


async def test_one_holder_of_a_lock_at_a_time(db: Database) -> None:
    """Tasks that want the same lock hold it one after another; another name is independent."""
    holders = most = 0

    async def work() -> None:
        nonlocal holders, most
        async with db.exclusive("relay"):
            holders += 1
            most = max(most, holders)
            await asyncio.sleep(0.01)
            async with db.exclusive("other"):
                await db.write(pair(most * 100 + holders + len(await whole_pairs(db))))
            holders -= 1

    await asyncio.gather(*(work() for _ in range(3)))
    assert most == 1
    assert len(await whole_pairs(db)) == 3


async def test_a_lock_is_free_after_an_error(db: Database) -> None:
    """An exception in the body passes through and releases the lock."""
    with pytest.raises(LookupError):
        async with db.exclusive("relay"):
            raise LookupError
    async with asyncio.timeout(10), db.exclusive("relay"):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "",
        "orders.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:orders.db",
        "mysql://u:secret@h/d",
        "user=u password=secret://x",
    ],
)
async def test_refuses_other_urls(url: str) -> None:
    """A URL of no known form is refused, without repeating a password in the message."""
    with pytest.raises(ValueError, match="expected sqlite:///") as caught:
        await open_database(url, "orders")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("service", ["", "Orders", 'a"b', "a" * 64, "1st"])
async def test_refuses_other_names(service: str) -> None:
    """A service name that would need quoting is refused."""
    with pytest.raises(ValueError, match="lower-case"):
        await open_database("sqlite:///unused.db", service)


WRITER = """
import asyncio, sys
from accord_runtime.database import open_database
from tests.runtime.database.test_database import pair

async def main(url, service, first):
    db = await open_database(url, service)
    async def work(start):
        for number in range(start, start + 10**6, 8):
            await db.write(pair(number))
            print(number, flush=True)
    await asyncio.gather(*(work(first + lane) for lane in range(8)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_what_was_acknowledged_survives_a_kill(database_url: str, service: str) -> None:
    """After kill -9 of a busy writer every write it reported is there, and none by half."""
    db = await open_database(database_url, service)
    await db.write(lambda tx: tx.execute(PAIRS))
    await db.close()
    acknowledged: set[int] = set()
    for start, lines in ((0, 150), (10**7, 71), (2 * 10**7, 1)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, database_url, service, str(start)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged.add(int(await asyncio.wait_for(process.stdout.readline(), 30)))
        process.kill()
        rest = (await process.communicate())[0].splitlines(keepends=True)
        acknowledged |= {int(line) for line in rest if line.endswith(b"\n")}
        db = await open_database(database_url, service)
        assert acknowledged <= await whole_pairs(db)
        await db.close()
