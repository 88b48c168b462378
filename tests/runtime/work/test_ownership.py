"""Whose work is whose: leases, clocks, and what others take over."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from accord_runtime.database import Database, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.work import executor as executor_module
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Queue
from tests.runtime.conftest import RESULTS
from tests.runtime.work.support import Held, Hurdle, at_work, empty, put, result, results, row, rows
from tests.support.clock import Clock
from tests.support.wait import until


async def test_a_lease_that_has_run_out_is_taken_over(record: Database, clock: Clock) -> None:
    """Another process does the work of one that hangs, and the late one changes nothing."""
    slow, quick = Executor(record, "slow", clock), Executor(record, "quick", clock)
    held, hurdle = Held(), Hurdle()
    slow.register(Queue("test", held))
    quick.register(Queue("test", hurdle))
    async with at_work(slow):
        await put(slow, record, "k")
        await until(lambda: held.started, "the slow one to begin")
    async with at_work(quick):
        await asyncio.sleep(0.05)
        assert not hurdle.calls
        clock.advance(36)
        await until(empty(record), "the takeover")
    held.go.set()
    await slow.drain()
    assert await results(record) == [held.started[0].id]


async def test_a_stale_owner_cannot_complete_what_another_has(
    record: Database, clock: Clock
) -> None:
    """Completing after the lease was taken over raises, and nothing of the effect is kept."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle()))
    await put(executor, record, "k")
    queue = executor._queues["test"]
    assert queue.lease == 35.0
    [stale] = await record.write(lambda tx: table.claim(tx, "test", "a", clock(), 9, lease=35.0))
    assert await record.write(lambda tx: table.claim(tx, "test", "b", clock(), 9, lease=35.0)) == []
    clock.advance(36)
    other = Executor(record, "b", clock)
    await other.take_back()
    [fresh] = await record.write(lambda tx: table.claim(tx, "test", "b", clock(), 9, lease=35.0))
    with pytest.raises(table.LeaseLost):
        await record.write(lambda tx: table.complete(tx, stale, "a", result("stale")))
    await executor._failed(queue, stale, RuntimeError("late"))
    assert (await row(record))["attempts"] == 0
    await record.write(lambda tx: table.complete(tx, fresh, "b", result("fresh")))
    assert await results(record) == ["fresh"]


async def test_a_restart_takes_back_what_it_had_leased(record: Database, clock: Clock) -> None:
    """The next life of a process runs what the last one left at once, but not what others run."""
    queue = Queue("test", Hurdle())
    for owner in ("dead", "other"):
        await record.write(partial(table.enqueue, queue="test", key=owner, now=clock()))
        claim = partial(
            table.claim, queue="test", owner=owner, now=clock(), oldest=1, lease=queue.lease
        )
        assert len(await record.write(claim)) == 1
    hurdle = Hurdle()
    executor = Executor(record, "dead", clock)
    executor.register(Queue("test", hurdle))
    await executor.take_back()
    async with at_work(executor):
        await until(lambda: _left(record, 1), "what the dead one had")
    assert hurdle.calls == {"dead": 1}


async def test_a_clock_set_back_delays_nothing(record: Database, clock: Clock) -> None:
    """Retries and new work that were due by a clock an hour ahead run at once, not in an hour."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle, delays=(8.0,)))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: hurdle.calls["k"], "the first attempt")
        hurdle.failing.clear()
        await record.write(lambda tx: table.enqueue(tx, "test", "new", now=clock() + 60.0))
        clock.advance(-3600)
        await until(empty(record), "the work", seconds=10)
    assert hurdle.calls == {"k": 2, "new": 1}


async def test_a_clock_set_forward_takes_nothing_from_who_works(
    record: Database, clock: Clock
) -> None:
    """What is at work when the clock jumps by an hour is not begun again, and ends as it would."""
    executor = Executor(record, "a", clock)
    held = Held()
    executor.register(Queue("test", held))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: held.started, "the handler")
        clock.advance(3600)
        await executor.take_back()  # Looks now, and not only with the next beat.
        executor.wake()
        held.go.set()
        await until(empty(record), "its end")
    assert await results(record) == [work.id for work in held.started]


async def test_work_cannot_be_due_later_than_its_queue_says(record: Database, clock: Clock) -> None:
    """What is due later than a wrong clock could be told from is refused when it is enqueued."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle(), ahead=100.0))
    await put(executor, record, "k", due_at=clock() + 100.0)
    with pytest.raises(ValueError, match="100 s"):
        await put(executor, record, "k", due_at=clock() + 101.0)


async def test_held_work_that_nobody_runs_is_found(record: Database, clock: Clock) -> None:
    """A caller that dies between the commit and the run leaves work that runs after the lease."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle()))
    async with at_work(executor):
        await record.write(lambda tx: executor.enqueue_held(tx, "test", "k"))
        clock.advance(36)
        await until(empty(record), "the work")


async def _left(database: Database, count: int) -> bool:
    return len(await rows(database)) == count


async def test_an_executor_that_is_alone_and_idle_writes_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite looking after work is reading, for as long as nothing is wrong; then it is not."""
    monkeypatch.setattr(executor_module, "POLL", 0.01)
    database = await open_database(f"sqlite:///{tmp_path}/idle.db", "idle")
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "test", [RESULTS])
    executor = Executor(database, "a", clock)
    held = Held()
    executor.register(Queue("test", held))
    counts: Counter[str] = Counter()

    def counted(name: str) -> None:
        method = getattr(database, name)

        async def call(fn: Callable[[Tx], object]) -> object:
            counts[name] += 1
            return await method(fn)

        monkeypatch.setattr(database, name, call)

    async with at_work(executor):
        await put(executor, database, "k")
        await until(lambda: held.started, "the work")
        counted("write")
        counted("look_up")
        await until(lambda: counts["look_up"] > 50, "it to have looked often")
        assert counts["write"] == 0
        executor._at_work.clear()  # As if a life before had left it.
        clock.advance(36.0)
        await until(lambda: counts["write"], "it to take the work back")
        held.go.set()
    await database.close()
