"""What replicas on PostgreSQL tell each other at once. No look of their own comes in time."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from accord_runtime import saga
from accord_runtime.database import Database, open_database
from accord_runtime.database import postgres as postgres_module
from accord_runtime.database.migrations import migrate
from accord_runtime.events import notifier, publisher
from accord_runtime.events.notifier import RECORD, Notifier
from accord_runtime.process import MIGRATIONS
from accord_runtime.work import executor as executor_module
from accord_runtime.work.executor import Executor, Queue
from tests.runtime.conftest import RESULTS
from tests.runtime.events.support import OrdersProcess, background, note
from tests.runtime.work.support import Held, at_work, empty, put
from tests.support.wait import until

NOBODY = "nats://127.0.0.1:1"

SOON = 2.0
"""Seconds; a quiet machine needs a fiftieth."""


@pytest.fixture(autouse=True)
def _no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (notifier, publisher, executor_module):
        monkeypatch.setattr(module, "POLL", 60.0)


@pytest.fixture
async def replicas(postgres_url: str, service: str) -> AsyncIterator[list[Database]]:
    """Three processes' views of one database."""
    found = [await open_database(postgres_url, service) for _ in range(3)]
    await migrate(found[0], "runtime", MIGRATIONS)
    await migrate(found[0], "test", [*saga.MIGRATIONS, RESULTS])
    yield found
    for each in found:
        await each.close()


async def listening(postgres_url: str, service: str, count: int) -> None:
    """Wait until so many processes listen."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = %s AND query LIKE 'LISTEN%%'"
    )

    def there() -> bool:
        with psycopg.connect(postgres_url) as admin:
            row: Any = admin.execute(sql, (service,)).fetchone()
            return bool(row[0] >= count)

    await until(there, "who listens")


async def test_a_watch_of_another_replica_is_woken(
    replicas: list[Database], postgres_url: str, service: str
) -> None:
    """An event wakes watches of its key and of the record wherever it was written and numbered.

    Also when the connections that listen were cut meanwhile: a replica listens again.
    """
    relay, writer, reader = (OrdersProcess(database, NOBODY) for database in replicas)
    hubs = [process.notifier for process in (relay, reader)]
    serving = background(relay.publisher.serve())
    async with (
        serving,
        background(hubs[0].serve(replicas[0])),
        background(hubs[1].serve(replicas[2])),
    ):
        await until(lambda: relay.publisher._numbers, "the relay")
        await listening(postgres_url, service, 3)
        took = [await _seconds_until_woken(writer, hubs, key) for key in "abcdefghij"]
        print(f"woken within {statistics.median(took) * 1000:.0f} ms (median), {max(took):.3f} s")
        assert statistics.median(took) < SOON

        with psycopg.connect(postgres_url, autocommit=True) as admin:
            cut = admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = %s AND query LIKE 'LISTEN%%'",
                (service,),
            ).rowcount
        assert cut == 3
        # Nobody listens: this is found when they do again.
        assert await _seconds_until_woken(writer, hubs, "k") < postgres_module.LISTEN_AGAIN + SOON
        await listening(postgres_url, service, 3)
        assert await _seconds_until_woken(writer, hubs, "l") < SOON


async def _seconds_until_woken(writer: OrdersProcess, hubs: list[Notifier], key: str) -> float:
    async def woken(hub: Notifier) -> None:
        with hub.watching(key) as watch, hub.watching(RECORD) as everything:
            await watch.wait()
            await everything.wait()

    waiting = [asyncio.create_task(woken(hub)) for hub in hubs]
    await asyncio.sleep(0)
    begun = time.monotonic()
    await writer.append(note(key))
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    return time.monotonic() - begun


async def test_work_that_one_replica_has_no_place_for(
    replicas: list[Database], postgres_url: str, service: str
) -> None:
    """Another replica begins it at once: what was added together, and what was added later.

    It is told once, and not for as long as there is no place.
    """
    full, free = Held(), Held()
    first, second = Executor(replicas[0], "first"), Executor(replicas[1], "second")
    first.register(Queue("test", full, concurrency=1))
    second.register(Queue("test", free))
    async with at_work(first), at_work(second):
        await listening(postgres_url, service, 2)
        await put(first, replicas[0], "a", "b")
        await until(lambda: len(full.started) + len(free.started) == 2, "both", seconds=SOON)
        await put(first, replicas[0], "c", "d")
        await until(lambda: len(full.started) + len(free.started) == 4, "all", seconds=SOON)
        told = 0

        def count() -> None:
            nonlocal told
            told += 1

        replicas[2].listen(executor_module.WORK, count)
        await asyncio.sleep(1.0)
        assert told <= 2, "who is full goes on telling"
        full.go.set()
        free.go.set()
        await until(empty(replicas[0]), "their end")


async def test_what_is_told_in_a_burst_is_told_together(
    replicas: list[Database], postgres_url: str, service: str
) -> None:
    """A thousand notifications at once cost two at most, and reach who listens."""
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1

    replicas[0].listen("here", hear)
    await until(lambda: heard == 1, "the beginning, which tells what was missed")
    for _ in range(1000):
        replicas[1].notify("here")
        replicas[1].notify("elsewhere")
    await until(lambda: heard > 1, "the word", seconds=SOON)
    await replicas[1].close()
    assert heard <= 3
