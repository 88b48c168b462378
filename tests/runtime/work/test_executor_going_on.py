"""Work that goes on from other work of its key, in its place."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from accord_runtime.database import CommitUnknown, Database, Tx
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import at_work, put, result, results, rows
from tests.support.wait import until

STEPS = 4
PLACES = 4

callers: ContextVar[str] = ContextVar("callers", default="")


class Chain:
    """Rows that go on so many times; notes who runs when, and what is in their context."""

    def __init__(self, database: Database, executor: Executor) -> None:
        self.executor, self.database = executor, database
        self.calls: list[str] = []
        self.contexts: list[str] = []
        self.running = self.most = 0
        self.hold = asyncio.Event()
        self.hold.set()
        executor.register(Queue("test", self, concurrency=PLACES, goes_on=True))

    async def __call__(self, work: Work) -> Effect:
        step = self.calls.count(work.key) + 1
        self.calls.append(work.key)
        self.contexts.append(callers.get())
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        await self.hold.wait()
        self.running -= 1

        def write(tx: Tx) -> None:
            result(f"{work.key} {step}")(tx)
            if step < STEPS:
                self.executor.go_on(tx, "test", work.key, flow_at=work.flow_at)

        return write

    async def held(self, key: str) -> None:
        """Do the first step for a caller who has something of their own."""
        callers.set("the caller's")
        work = await self.database.write(lambda tx: self.executor.enqueue_held(tx, "test", key))
        await self.executor.run(work)


def has(database: Database, count: int) -> Callable[[], object]:
    """A condition: this many steps were done."""

    async def check() -> bool:
        return len(await results(database)) >= count

    return check


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the rows that were claimed."""
    found: list[str] = []
    claim = table.claim

    def counting(*args: object, **options: object) -> list[Work]:
        works = claim(*args, **options)  # type: ignore[arg-type]
        found.extend(work.key for work in works)
        return works

    monkeypatch.setattr(table, "claim", counting)
    return found


async def test_a_row_goes_on_without_being_looked_for(record: Database, claims: list[str]) -> None:
    """All steps are done, in order, though only the first one was claimed."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)
    async with at_work(executor):
        await put(executor, record, "a")
        await until(has(record, STEPS), "all steps")
    assert await results(record) == [f"a {step}" for step in range(1, STEPS + 1)]
    assert chain.calls == ["a"] * STEPS
    assert claims == ["a"]


async def test_what_a_caller_has_begun_goes_on_behind_it(
    record: Database, claims: list[str]
) -> None:
    """The caller waits for the first step alone; the others have nothing of the caller's."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)
    async with at_work(executor):
        await asyncio.create_task(chain.held("a"))
        assert len(await results(record)) < STEPS
        await until(has(record, STEPS), "all steps")
    assert chain.contexts == ["the caller's", *[""] * (STEPS - 1)]
    assert claims == []


async def test_no_more_go_on_than_there_are_places(record: Database) -> None:
    """Of 40 that callers begin at once, more than the first steps are never at work together."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)
    async with at_work(executor):
        await asyncio.gather(*(chain.held(f"k{number}") for number in range(40)))
        chain.most = chain.running
        await until(has(record, 40 * STEPS), "all steps")
        assert chain.most <= PLACES
        assert not +executor._running
    assert len(set(await results(record))) == 40 * STEPS


async def test_a_process_that_ends_leaves_what_would_go_on(record: Database) -> None:
    """It is given back, to whoever comes next, and nothing has died of it."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)
    chain.hold.clear()
    async with at_work(executor):
        await put(executor, record, "a")
        await until(lambda: chain.running, "the first step")
        draining = asyncio.create_task(executor.drain())
        await asyncio.sleep(0)
        chain.hold.set()
        await draining
    (left,) = await rows(record)
    assert (left["key"], left["lease_until"], left["deaths"]) == ("a", 0.0, 0)
    later = Executor(record, "another")
    chain.executor = later
    later.register(Queue("test", chain, goes_on=True))
    async with at_work(later):
        await until(has(record, STEPS), "the other steps")
    assert await results(record) == [f"a {step}" for step in range(1, STEPS + 1)]


async def test_what_was_to_go_on_when_the_process_ends_is_given_back(record: Database) -> None:
    """So is what was leased already: whoever comes next has it at once."""
    executor = Executor(record, "test")

    async def step(work: Work) -> Effect:
        def write(tx: Tx) -> None:
            assert executor.go_on(tx, "test", work.key, flow_at=work.flow_at)
            tx.after_commit(lambda: setattr(executor, "_draining", True))

        return write

    executor.register(Queue("test", step, goes_on=True))
    async with at_work(executor):
        await put(executor, record, "a")

        async def leased() -> bool:
            return [each["attempts"] for each in await rows(record)] == [0] and executor._draining

        await until(leased, "the first step")
        await executor.drain()
    (left,) = await rows(record)
    assert (left["key"], left["lease_until"], left["deaths"]) == ("a", 0.0, 0)


async def test_a_commit_of_which_nothing_was_heard(
    record: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would have gone on is not left to its lease."""
    executor, usual = Executor(record, "test"), record.write
    chain = Chain(record, executor)
    lost = 0

    async def write(fn: Callable[[Tx], Any]) -> Any:
        nonlocal lost
        done = await usual(fn)
        if not lost and chain.calls and (await results(record)):
            lost += 1
            raise CommitUnknown("the connection was lost during commit")
        return done

    monkeypatch.setattr(record, "write", write)
    async with at_work(executor):
        await put(executor, record, "a")
        await until(has(record, STEPS), "all steps", seconds=15)
        await until(partial(nothing_left, record), "no row is left")
    assert lost == 1
    assert await results(record) == [f"a {step}" for step in range(1, STEPS + 1)]


async def nothing_left(record: Database) -> bool:
    """Whether there is no work."""
    return not await rows(record)


async def test_who_waits_is_not_overtaken(record: Database, claims: list[str]) -> None:
    """While there is a backlog, what callers begin waits with it for its later steps."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)
    async with at_work(executor):
        chain.hold.clear()
        await put(executor, record, *(f"old{number}" for number in range(3 * PLACES)))
        await until(lambda: chain.running == PLACES, "all places to be taken")
        chain.hold.set()
        await asyncio.gather(*(chain.held(f"new{number}") for number in range(PLACES)))
        await until(has(record, 4 * PLACES * STEPS), "all steps")
    assert {f"new{number}" for number in range(PLACES)} <= set(claims)


async def test_a_row_that_is_not_at_work_is_enqueued(record: Database, claims: list[str]) -> None:
    """Who goes on with another key, or from nowhere, has work like any other."""
    executor = Executor(record, "test")
    chain = Chain(record, executor)

    async def other(work: Work) -> Effect:
        def write(tx: Tx) -> None:
            assert not executor.go_on(tx, "test", "b", flow_at=0.0)

        return write

    executor.register(Queue("other", other, goes_on=True))
    async with at_work(executor):
        await put(executor, record, "a", queue="other")
        await until(has(record, STEPS), "all steps")
        await record.write(lambda tx: executor.go_on(tx, "test", "c", flow_at=0.0))
        await until(has(record, 2 * STEPS), "all steps")
    assert claims == ["a", "b", "c"]
    assert chain.calls == ["b"] * STEPS + ["c"] * STEPS
