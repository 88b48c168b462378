"""Versions of a definition: a saga keeps the one that it began with, whoever runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from accord_runtime.database import Database, Row, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.saga import MIGRATIONS as TABLES
from accord_runtime.saga import Phase, Sagas
from accord_runtime.saga.orchestrator import Saga, load
from accord_runtime.work import table
from accord_runtime.work.executor import Executor
from accord_runtime.work.unserved import UNSERVED
from tests.runtime.conftest import RESULTS
from tests.runtime.saga import version_worker
from tests.runtime.saga.version_worker import NAMES, definition
from tests.runtime.work.support import at_work, parked_items, result, rows
from tests.support.clock import Clock
from tests.support.wait import until

ROOT = Path(__file__).parents[3]
COUNT = 20


@asynccontextmanager
async def worker(
    url: str, service: str, name: str, versions: str, patience: float = 60.0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that works, and is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", version_worker.__name__, url, service, name, versions),
        str(patience),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"working\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def opened(url: str, service: str) -> AsyncIterator[Database]:
    """The database of the workers."""
    database = await open_database(url, service)
    try:
        await migrate(database, "runtime", MIGRATIONS)
        await migrate(database, "test", [*TABLES, RESULTS])
        yield database
    finally:
        await database.close()


async def begin(database: Database, version: int, names: list[str]) -> None:
    """Begin sagas as the process would that takes an order, and have them found."""
    sagas = Sagas(database, Executor(database, "test"))
    found = definition(database, version, "test")
    sagas.register(found)

    def write(tx: Tx) -> None:
        for name in names:
            sagas.start(tx, found, name)
        tx.execute("UPDATE work SET lease_until = 0 WHERE owner = 'test'")

    await database.write(write)


async def found(database: Database, names: list[str]) -> list[Saga]:
    """These sagas."""
    sagas = [await database.read(lambda tx, name=name: load(tx, name)) for name in names]  # type: ignore[misc]
    return [saga for saga in sagas if saga is not None]


async def at_the_last(database: Database, names: list[str]) -> bool:
    """Whether each waits in its last step."""
    sagas = await found(database, names)
    return all(saga.position.step + 1 == len(NAMES[saga.version]) for saga in sagas)


async def done(database: Database, names: list[str]) -> bool:
    """Whether each has ended well."""
    return all(saga.position.phase is Phase.DONE for saga in await found(database, names))


async def effects(database: Database) -> list[Row]:
    """What was done, and by whom."""
    return await database.read(
        lambda tx: tx.all("SELECT id, text FROM results WHERE id <> 'go' ORDER BY id")
    )


async def test_a_rolling_upgrade_with_sagas_in_flight(postgres_url: str, service: str) -> None:
    """The old process carries old sagas on and leaves new ones alone, also if no other lives."""
    olds = [f"s{number:02}" for number in range(COUNT)]
    news = [f"t{number:02}" for number in range(COUNT)]
    async with opened(postgres_url, service) as database:
        async with worker(postgres_url, service, "old", "1"):
            await begin(database, 1, olds[: COUNT // 2])
            async with worker(postgres_url, service, "new", "1,2"):
                await begin(database, 1, olds[COUNT // 2 :])
                await begin(database, 2, news)
                await until(lambda: at_the_last(database, olds + news), "all in their last step")
            await database.write(result("go", ""))
            await until(lambda: done(database, olds), "the old ones")
            assert not [saga for saga in await found(database, news) if saga.position.ended]
            assert {row["state"] for row in await rows(database)} == {"ready"}
            async with worker(postgres_url, service, "new", "1,2"):
                await until(lambda: done(database, news), "the new ones")
        did = await effects(database)
    wanted = [f"{name} {step}" for name in olds for step in NAMES[1]]
    wanted += [f"{name} {step}" for name in news for step in NAMES[2]]
    assert [row["id"] for row in did] == sorted(wanted)
    assert {row["text"] for row in did if row["id"][0] == "t"} == {"new"}
    assert {row["text"] for row in did if row["id"][0] == "s"} >= {"old"}


async def test_a_version_that_nobody_knows_any_more_is_parked(
    postgres_url: str, service: str
) -> None:
    """The old process says so when no other has served it for a while; retried, the saga ends."""
    async with (
        opened(postgres_url, service) as database,
        worker(postgres_url, service, "old", "1", patience=1.0),
    ):
        async with worker(postgres_url, service, "new", "1,2"):
            await begin(database, 2, ["t"])
            await until(lambda: at_the_last(database, ["t"]), "its last step")
            # Longer than the old one's patience: the new one lives, and says what it serves.
            await asyncio.sleep(2.0)
            assert not await database.read(parked_items)
        await until(lambda: database.read(parked_items), "parked")
        (item,) = await database.read(parked_items)
        assert (item.queue, item.key) == ("saga/test/2", "t")
        assert item.last_error == "no process serves queue 'saga/test/2'; retry it when one does"
        await database.write(result("go", ""))
        async with worker(postgres_url, service, "new", "1,2"):
            await database.write(lambda tx: table.unpark(tx, item.id, 0.0))
            await until(lambda: done(database, ["t"]), "its end")


async def test_one_process_parks_what_it_does_not_know(record: Database, clock: Clock) -> None:
    """Alone with its database it is the one to say so: of a later version, and of another kind."""
    executor = Executor(record, "test", clock)
    sagas = Sagas(record, executor, clock)
    sagas.register(definition(record, 1, "test"))
    await begin(record, 2, ["t"])
    await record.write(
        lambda tx: tx.execute("UPDATE work SET created_at = 0, due_at = 0, flow_at = 0")
    )
    await begin(record, 1, ["u"])
    await record.write(lambda tx: tx.execute("UPDATE saga SET definition = 'x' WHERE id = 'u'"))
    async with at_work(executor):

        async def parked() -> bool:
            clock.advance(UNSERVED)
            await record.write(executor._look_after)
            return len(await record.read(parked_items)) == 2

        await until(parked, "both parked")
    said = {item.key: item.last_error for item in await record.read(parked_items)}
    assert said["t"] == "no process serves queue 'saga/test/2'; retry it when one does"
    assert said["u"] == (
        "Permanent: this process does not know version 1 of 'x', only test 1: retry it when one"
        " runs that does"
    )


async def test_a_version_is_registered_once(record: Database) -> None:
    """Two definitions of one version would change the way of sagas under way."""
    sagas = Sagas(record, Executor(record, "test"))
    sagas.register(definition(record, 1, "test"))
    with pytest.raises(ValueError, match="version 1 of 'test' is known already"):
        sagas.register(definition(record, 1, "test"))
