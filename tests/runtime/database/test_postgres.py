"""What only PostgreSQL has: lost connections, deadlocks, replicas and a dialect."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.database import (
    CommitUnknown,
    Conflict,
    Database,
    DatabaseError,
    DatabaseUnavailable,
    Lock,
    Tx,
    open_database,
)
from accord_runtime.database import postgres as module
from accord_runtime.database.postgres_sql import translate
from accord_runtime.database.worker_threads import WorkerThreads
from tests.runtime.database.test_database import PAIRS, pair, whole_pairs


@pytest.fixture
async def db(postgres_url: str, service: str) -> AsyncIterator[Database]:
    opened = await open_database(postgres_url, service)
    await opened.write(lambda tx: tx.execute(PAIRS))
    yield opened
    await opened.close()


@pytest.fixture
def kick(postgres_url: str, service: str) -> Callable[[], int]:
    """Terminates every connection of this test's service; returns how many there were."""

    def fn() -> int:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            return admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = %s",
                (service,),
            ).rowcount

    return fn


PIECES = [
    (":id", "%(id)s"),
    (":_under_score9", "%(_under_score9)s"),
    ("'it''s :id 5% ::x -- BLOB'", "'it''s :id 5%% ::x -- BLOB'"),
    ('"a "":id"" %"', '"a "":id"" %%"'),
    ("::text", "::text"),
    (":id::BIGINT", "%(id)s::BIGINT"),
    ("-- it's :id and 5%\n", "-- it's :id and 5%%\n"),
    ("/* it's :id\n % */", "/* it's :id\n %% */"),
    ("a % b", "a %% b"),
    ("(:a,:b)", "(%(a)s,%(b)s)"),
    ("LIKE 'a%'", "LIKE 'a%%'"),
    ("BLOB", "BLOB"),
    ("plain_words(1) ->> 2 : 3", "plain_words(1) ->> 2 : 3"),
]


@given(st.lists(st.sampled_from(PIECES)))
def test_translates_parameters_only(pieces: list[tuple[str, str]]) -> None:
    """Names become psycopg's, per cent signs are doubled, quotes, casts and comments stay."""
    source = " ".join(["SELECT", *(piece[0] for piece in pieces)])
    expected = " ".join(["SELECT", *(piece[1] for piece in pieces)])
    assert translate(source).decode() == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("CREATE TABLE a (b BLOB, blobs TEXT)", "CREATE TABLE a (b BYTEA, blobs TEXT)"),
        ("\n  alter TABLE a ADD b blob", "\n  alter TABLE a ADD b BYTEA"),
        ("CREATE TABLE a (b TEXT DEFAULT 'BLOB')", "CREATE TABLE a (b TEXT DEFAULT 'BLOB')"),
        ("INSERT INTO blob VALUES (1)", "INSERT INTO blob VALUES (1)"),
    ],
)
def test_translates_the_type_of_bytes(source: str, expected: str) -> None:
    """BLOB becomes BYTEA where tables are defined and nowhere else."""
    assert translate(source).decode() == expected


async def test_a_deadlock_is_run_again(db: Database) -> None:
    """Two writes that lock the same rows in opposite order both land."""
    await db.write(pair(0))
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    def work(first: int, second: int) -> Callable[[Tx], None]:
        def fn(tx: Tx) -> None:
            attempts.append(first)
            add = "UPDATE pair SET id = id + 1 WHERE half = :half"
            tx.execute(add, {"half": first})
            if attempts.count(first) == 1:
                both_hold_one.wait(10)
            tx.execute(add, {"half": second})

        return fn

    await asyncio.gather(db.write(work(1, 2)), db.write(work(2, 1)))
    assert len(attempts) >= 3
    assert await whole_pairs(db) == {2}


async def test_a_serialization_failure_is_run_again(db: Database) -> None:
    """Read-modify-write at SERIALIZABLE loses no update, because the loser is run again."""
    await db.write(pair(0))
    both_have_read = threading.Barrier(2)
    attempts: list[int] = []

    def work(name: int) -> Callable[[Tx], None]:
        def fn(tx: Tx) -> None:
            attempts.append(name)
            tx.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            row = tx.one("SELECT id FROM pair WHERE half = 1")
            assert row is not None
            if attempts.count(name) == 1:
                both_have_read.wait(10)
            tx.execute("UPDATE pair SET id = :id", {"id": row["id"] + 1})

        return fn

    await asyncio.gather(db.write(work(1)), db.write(work(2)))
    assert len(attempts) == 3
    assert await whole_pairs(db) == {2}


async def test_a_hidden_deadlock_is_still_run_again(db: Database) -> None:
    """A function that turns the driver's error into its own does not prevent the retry."""
    attempts = 0

    def fn(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        pair(attempts)(tx)
        if attempts == 1:
            try:
                tx.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")
            except DatabaseError as error:
                raise LookupError from error

    await db.write(fn)
    assert await whole_pairs(db) == {2}


async def test_gives_up_in_the_end(db: Database) -> None:
    """A conflict that never passes becomes DatabaseUnavailable after a bounded number of tries."""
    attempts = 0

    def fn(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        tx.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$")

    with pytest.raises(DatabaseUnavailable):
        await db.write(fn)
    assert 3 <= attempts <= module.ATTEMPTS


async def test_recovers_from_a_dead_idle_connection(db: Database, kick: Callable[[], int]) -> None:
    """After the server terminated idle connections, the next write and read work unnoticed."""
    assert kick() >= 1
    assert await db.write(pair(1)) == 1
    assert kick() >= 1
    assert await whole_pairs(db) == {1}


async def test_recovers_from_a_connection_that_dies_before_commit(db: Database) -> None:
    """A transaction whose connection dies in the middle is run again, and lands once."""
    attempts = 0

    def fn(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        pair(attempts)(tx)
        if attempts == 1:
            tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    await db.write(fn)
    assert await whole_pairs(db) == {2}


async def test_survives_kicks_at_any_moment(db: Database, kick: Callable[[], int]) -> None:
    """Under load with connections terminated again and again, acknowledged writes are all there."""

    async def work(number: int) -> int:
        while True:
            try:
                return await db.write(pair(number))
            except Conflict:
                return number  # An unknown commit had landed.
            except DatabaseUnavailable:
                continue

    tasks = [asyncio.create_task(work(number)) for number in range(400)]
    for _ in range(5):
        await asyncio.to_thread(kick)
    assert set(await asyncio.gather(*tasks)) == set(range(400))
    assert await whole_pairs(db) == set(range(400))


async def test_an_unknown_commit_is_said_to_be_unknown(db: Database) -> None:
    """If the connection is lost during COMMIT the write is not run again but reported as such."""

    def create(tx: Tx) -> None:
        tx.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        tx.execute(
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON pair DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )

    await db.write(create)
    called: list[int] = []
    attempts = 0

    def fn(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        tx.after_commit(lambda: called.append(1))
        pair(1)(tx)

    with pytest.raises(CommitUnknown):
        await db.write(fn)
    assert attempts == 1
    assert called == []
    assert await whole_pairs(db) == set()


async def test_a_constraint_checked_at_commit(db: Database) -> None:
    """A unique constraint that is checked only at COMMIT is a Conflict as well."""
    await db.write(
        lambda tx: tx.execute("CREATE TABLE d (id BIGINT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    )
    with pytest.raises(Conflict):
        await db.write(lambda tx: tx.execute("INSERT INTO d VALUES (1), (1)"))
    await db.write(lambda tx: tx.execute("INSERT INTO d VALUES (1)"))


async def test_a_server_that_is_not_there(tmp_path: Path, service: str) -> None:
    """Opening gives up with DatabaseUnavailable within a few seconds."""
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseUnavailable, match="cannot connect"):
            await open_database(f"postgresql:///x?host={tmp_path}", service)


async def test_a_statement_has_a_time_limit(
    postgres_url: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that takes too long is cancelled as DatabaseUnavailable; the next one works."""
    monkeypatch.setattr(module, "STATEMENT_TIMEOUT", 0.1)
    db = await open_database(postgres_url, service)
    async with asyncio.timeout(5):
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            await db.write(lambda tx: tx.execute("SELECT pg_sleep(60)"))
    await db.write(lambda tx: tx.execute(PAIRS))
    await db.close()


async def test_a_function_cannot_end_its_transaction(db: Database) -> None:
    """COMMIT inside the function is an error, and the connection is not used further."""
    with pytest.raises(DatabaseError, match="ended the transaction itself"):
        await db.write(lambda tx: tx.execute("ROLLBACK"))
    assert await db.write(pair(1)) == 1


async def test_replicas_share_the_schema(db: Database, postgres_url: str, service: str) -> None:
    """A replica sees what another wrote, and a service does not see another service's tables."""
    await db.write(pair(1))
    replica = await open_database(postgres_url, service)
    assert await whole_pairs(replica) == {1}
    await replica.close()
    stranger = await open_database(postgres_url, f"{service}_other")
    with pytest.raises(DatabaseError, match="does not exist"):
        await whole_pairs(stranger)
    await stranger.close()


async def test_prepared_statements_outlive_a_migration(
    db: Database, postgres_url: str, service: str
) -> None:
    """A replica whose prepared SELECT * is outdated by an added column goes on working."""
    await db.write(pair(1))
    for _ in range(10):
        await db.read(lambda tx: tx.one("SELECT * FROM pair"))
    replica = await open_database(postgres_url, service)
    await replica.write(lambda tx: tx.execute("ALTER TABLE pair ADD COLUMN note TEXT"))
    await replica.close()
    row = await db.read(lambda tx: tx.one("SELECT * FROM pair"))
    assert row is not None
    assert list(row) == ["id", "half", "note"]


async def test_skip_locked_passes_over_a_held_row(db: Database) -> None:
    """A row that one transaction has locked is invisible to another that skips locked rows."""
    await db.write(pair(1))
    loop = asyncio.get_running_loop()
    locked, go = asyncio.Event(), threading.Event()

    def hold(tx: Tx) -> None:
        assert tx.one("SELECT half FROM pair WHERE half = 1" + tx.for_update)
        loop.call_soon_threadsafe(locked.set)
        assert go.wait(10)

    holding = asyncio.create_task(db.write(hold))
    await locked.wait()
    rows = await db.write(lambda tx: tx.all("SELECT half FROM pair" + tx.skip_locked))
    go.set()
    await holding
    assert rows == [{"half": 2}]


@pytest.fixture(autouse=True)
def _quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_POLL", 0.02)


async def test_replicas_exclude_each_other(db: Database, postgres_url: str, service: str) -> None:
    """A replica waits for a lock until the other gives it up; other services do not compete."""
    replica = await open_database(postgres_url, service)
    other = await open_database(postgres_url, f"{service}_other")
    order: list[str] = []

    async def second() -> None:
        async with replica.exclusive("relay"):
            order.append("second")

    async with db.exclusive("relay"), other.exclusive("relay"):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.2)
        order.append("first")
    await waiting
    assert order == ["first", "second"]
    await replica.close()
    await other.close()


async def test_a_lost_lock_ends_its_body(db: Database) -> None:
    """When another has the lock the body is cancelled, its writes fail, and it can wait again."""
    cancelled = False
    held: list[Lock] = []

    async def body() -> None:
        nonlocal cancelled
        async with db.exclusive("relay") as lock:
            held.append(lock)
            await db.write(lock.guard(pair(2)))
            try:
                await db.write(lambda tx: tx.execute("UPDATE locks SET owner = 'another'"))
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

    with pytest.raises(DatabaseUnavailable, match="'relay' was lost"):
        await asyncio.wait_for(body(), 10)
    assert cancelled
    with pytest.raises(DatabaseUnavailable, match="'relay' was lost"):
        await db.write(held[0].guard(pair(3)))
    async with asyncio.timeout(10), db.exclusive("relay"):  # The other is silent.
        await db.write(pair(1))
    assert await whole_pairs(db) == {1, 2}


async def test_a_lost_connection_loses_no_lock(db: Database, kick: Callable[[], int]) -> None:
    """The lock is kept over a connection that breaks, and is renewed on the next one."""
    async with asyncio.timeout(20), db.exclusive("relay") as lock:
        kick()
        await asyncio.sleep(module.LOCK_SILENCE)
        await db.write(lock.guard(pair(1)))


HOLDER = """
import asyncio, sys
from accord_runtime.database import open_database

async def main(url, service):
    db = await open_database(url, service)
    async with db.exclusive("relay"):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_lock_of_a_silent_process_passes_on(
    db: Database, postgres_url: str, service: str, fate: signal.Signals
) -> None:
    """A lock whose holder is dead or frozen belongs to the next within seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, postgres_url, service), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    process.send_signal(fate)
    async with asyncio.timeout(20), db.exclusive("relay"):
        pass
    if fate is signal.SIGSTOP:
        process.kill()
    await process.wait()


async def test_a_check_that_ends_together_with_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock whose check is answered in the moment in which it is given up cancels nobody."""
    monkeypatch.setattr(module, "LOCK_POLL", 0)
    asked = asyncio.Event()
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    class Answering(WorkerThreads):
        async def submit(self, fn: Any, *, read_only: bool = False) -> Any:
            if answer.done():
                raise DatabaseUnavailable("the database is closed")
            asked.set()
            return await answer

    threads = Answering("lock", lambda: pytest.fail("no thread is needed"), threads=1, backlog=1)
    async with module._guarded(threads, lambda tx: True, "relay"):
        await asked.wait()
        answer.set_result(True)
    for _ in range(10):  # whatever was left behind has its turn
        await asyncio.sleep(0)


async def test_a_cancelled_holder_stays_cancelled(db: Database) -> None:
    """Cancelling a task under the lock, or waiting for it, is not mistaken for a lost lock."""

    async def body() -> None:
        async with db.exclusive("relay"):
            await asyncio.Event().wait()

    holder = asyncio.create_task(body())
    await asyncio.sleep(0.2)
    waiter = asyncio.create_task(body())
    await asyncio.sleep(0.1)
    for task in (waiter, holder):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(10), db.exclusive("relay"):
        pass
