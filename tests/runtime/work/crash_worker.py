"""A process that works; run by test_executor_crash.py, which kills it.

Arguments: database URL, service, its own name, and `hang`, `finish` or `die`: at the key "pill" it
does, without a word.
"""

import asyncio
import os
import sys

from accord_runtime.database import open_database
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import at_work, result, rows
from tests.support.wait import until


async def main(url: str, service: str, name: str, mode: str) -> None:
    """Work until nothing runs any more; in mode `hang` the first row is never finished."""
    setattr(table, "DEATHS", [0.0] * len(table.DEATHS))  # noqa: B010 - without its waits
    database = await open_database(url, service)
    executor = Executor(database, name)

    async def handle(work: Work) -> Effect:
        print("working", flush=True)
        if mode == "hang":
            await asyncio.Event().wait()
        if mode == "die":
            if work.key == "pill":
                os._exit(9)
            await asyncio.sleep(0.01)  # It is at work when the pill is.
        return result(work.id)

    async def over() -> bool:
        return all(row["state"] == "parked" for row in await rows(database))

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await until(over, "all work", seconds=60)
        await executor.drain()
    await database.close()


asyncio.run(main(*sys.argv[1:]))
