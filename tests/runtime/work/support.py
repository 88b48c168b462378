"""An executor at work, for tests."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from accord.ops.v1.work_pb2 import ListWorkRequest
from accord_runtime.database import Database, Row, Tx
from accord_runtime.grpc.page_tokens import Page, encode_token
from accord_runtime.work import items, table
from accord_runtime.work.executor import Executor
from accord_runtime.work.items import Item, State, Wanted
from accord_runtime.work.table import Effect, Work


@asynccontextmanager
async def at_work(executor: Executor) -> AsyncIterator[Executor]:
    """Serve until the block is left; what is running then is left alone."""
    await executor.take_back()
    serving = asyncio.create_task(executor.serve())
    try:
        yield executor
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def result(id: str, text: str = "") -> Effect:  # noqa: A002
    """An effect that shows when it happens."""

    def write(tx: Tx) -> None:
        tx.execute("INSERT INTO results (id, text) VALUES (:id, :text)", {"id": id, "text": text})

    return write


async def results(database: Database) -> list[str]:
    """The ids of all effects, sorted."""
    rows = await database.read(lambda tx: tx.all("SELECT id FROM results ORDER BY id"))
    return [row["id"] for row in rows]


async def put(
    executor: Executor,
    database: Database,
    *keys: str,
    queue: str = "test",
    payload: bytes = b"",
    seq: int = 0,
    due_at: float | None = None,
) -> None:
    """Enqueue a row per key, in this order, in one transaction."""

    def write(tx: Tx) -> None:
        for key in keys:
            executor.enqueue(tx, queue, key, payload, seq=seq, due_at=due_at)

    await database.write(write)


async def rows(database: Database) -> list[Row]:
    """All rows of work in the order of enqueueing."""
    return await database.read(lambda tx: tx.all("SELECT * FROM work ORDER BY id"))


async def row(database: Database) -> Row:
    """The only row of work."""
    found = await rows(database)
    assert len(found) == 1
    return found[0]


def parked_items(tx: Tx, *, after: str = "", most: int = 100) -> list[Item]:
    """The parked rows, oldest first, beginning after an id."""
    token = encode_token({}, after) if after else ""
    asked = Page(ListWorkRequest(page_size=most, page_token=token))
    return items.page(tx, asked, Wanted(State.PARKED, "", math.inf, ""))[0]


def empty(database: Database) -> Callable[[], object]:
    """A condition: all work is done."""

    async def check() -> bool:
        return not await rows(database)

    return check


async def due(database: Database, now: float, queue: str = "test") -> bool:
    """Whether some row of the queue could run now."""
    found, _ = await database.read(lambda tx: table.look(tx, [queue], now))
    return bool(found)


class Hurdle:
    """A handler that fails until it is told to stop."""

    def __init__(self, *keys: str) -> None:
        self.failing = set(keys)
        self.calls: Counter[str] = Counter()

    async def __call__(self, work: Work) -> Effect:
        self.calls[work.key] += 1
        if work.key in self.failing:
            raise RuntimeError(f"no {work.key} today")
        return result(work.id)


class Held:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.started: list[Work] = []
        self.go = asyncio.Event()

    async def __call__(self, work: Work) -> Effect:
        self.started.append(work)
        await self.go.wait()
        return result(work.id)
