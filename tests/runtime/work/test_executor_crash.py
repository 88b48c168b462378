"""A worker that is killed in the middle of its work."""

import asyncio
import signal
import sys
import time

import pytest

from accord_runtime.database import open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.work import table
from accord_runtime.work.table import enqueue
from tests.runtime.conftest import RESULTS
from tests.runtime.work.support import results, rows

LEASE = 35.0
GOOD = 20


async def started(
    url: str, service: str, mode: str, name: str = "worker"
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtime.work.crash_worker",
        url,
        service,
        name,
        mode,
        stdout=asyncio.subprocess.PIPE,
    )


async def worker(*arguments: str) -> asyncio.subprocess.Process:
    """A process that is at work."""
    process = await started(*arguments)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    return process


async def enqueued(url: str, service: str, *keys: str) -> list[str]:
    """A new database with a row of work for each of these keys; their ids."""
    database = await open_database(url, service)
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "test", [RESULTS])
    ids = [
        (await database.write(lambda tx, key=key: enqueue(tx, "test", key, now=time.time()))).id  # type: ignore[misc]
        for key in keys
    ]
    await database.close()  # An SQLite file belongs to one process.
    return ids


async def test_what_a_killed_process_was_doing_is_done_by_its_next_life(
    database_url: str, service: str
) -> None:
    """After SIGKILL in a handler the next process does the rows, once, and waits for no lease."""
    ids = await enqueued(database_url, service, "k", "k")

    async with asyncio.timeout(LEASE):
        killed = await worker(database_url, service, "hang")
        killed.kill()
        await killed.wait()
        assert await (await worker(database_url, service, "finish")).wait() == 0

    database = await open_database(database_url, service)
    assert await results(database) == ids
    assert await rows(database) == []
    await database.close()


async def test_work_that_kills_its_process_is_parked(database_url: str, service: str) -> None:
    """Twenty good rows beside one that ends every process are all done; the bad one is parked."""
    pill, *good = await enqueued(database_url, service, "pill", *map(str, range(GOOD)))
    codes = []
    while 0 not in codes:
        codes.append(await (await started(database_url, service, "die")).wait())
    assert codes == [9] * (len(table.DEATHS) + 1) + [0]

    database = await open_database(database_url, service)
    assert await results(database) == sorted(good)
    (left,) = await rows(database)
    assert (left["id"], left["state"]) == (pill, "parked")
    assert "process died" in left["history"]
    await database.close()


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_another_replica_takes_over(
    request: pytest.FixtureRequest, service: str, fate: signal.Signals
) -> None:
    """What a killed or frozen replica had in hand is done by another, before its lease ends."""
    url = request.getfixturevalue("postgres_url")
    ids = await enqueued(url, service, "k", "k")
    async with asyncio.timeout(LEASE - 10):
        gone = await worker(url, service, "hang", "on another machine")
        gone.send_signal(fate)
        assert await (await worker(url, service, "finish", "here")).wait() == 0
    if fate is signal.SIGSTOP:
        gone.kill()
    await gone.wait()

    database = await open_database(url, service)
    assert await results(database) == ids
    assert await rows(database) == []
    await database.close()
