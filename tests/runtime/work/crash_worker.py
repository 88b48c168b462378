"""A process that works; run by test_executor_crash.py, which kills it.

Arguments: database URL, service, and `hang` or `finish`.
"""

import asyncio
import sys

from accord_runtime.database import open_database
from accord_runtime.work.executor import Executor, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import at_work, empty, result
from tests.support.wait import until


async def main(url: str, service: str, mode: str) -> None:
    """Work until nothing is left; in mode `hang` the first row is never finished."""
    database = await open_database(url, service)
    executor = Executor(database, "worker")

    async def handle(work: Work) -> Effect:
        print("working", flush=True)
        if mode == "hang":
            await asyncio.Event().wait()
        return result(work.id)

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await until(empty(database), "all work", seconds=60)
        await executor.drain()
    await database.close()


asyncio.run(main(*sys.argv[1:]))
