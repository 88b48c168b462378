"""A worker that is killed in the middle of its work."""

import asyncio
import sys
import time

from accord_runtime.database import open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.work.table import enqueue
from tests.runtime.conftest import RESULTS
from tests.runtime.work.support import results, rows

LEASE = 35.0


async def worker(url: str, service: str, mode: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtime.work.crash_worker",
        url,
        service,
        mode,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    return process


async def test_what_a_killed_process_was_doing_is_done_by_its_next_life(
    database_url: str, service: str
) -> None:
    """After SIGKILL in a handler the next process does the rows, once, and waits for no lease."""
    database = await open_database(database_url, service)
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "test", [RESULTS])
    ids = [
        (await database.write(lambda tx: enqueue(tx, "test", "k", now=time.time()))).id
        for _ in range(2)
    ]
    await database.close()  # An SQLite file belongs to one process.

    async with asyncio.timeout(LEASE):
        killed = await worker(database_url, service, "hang")
        killed.kill()
        await killed.wait()
        assert await (await worker(database_url, service, "finish")).wait() == 0

    database = await open_database(database_url, service)
    assert await results(database) == ids
    assert await rows(database) == []
    await database.close()
