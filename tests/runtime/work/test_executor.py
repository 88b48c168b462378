"""The executor: what runs when, what happens once, and what becomes of failures."""

import asyncio
import contextlib
import contextvars
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeVar

import pytest

from accord import telemetry
from accord.errors import Unavailable
from accord_runtime.database import Database, DatabaseUnavailable, Lock, Tx, open_database
from accord_runtime.work import table
from accord_runtime.work.executor import DELAYS, MAX_TOLD, Executor, Permanent, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import (
    Held,
    Hurdle,
    at_work,
    due,
    empty,
    parked_items,
    put,
    result,
    results,
    row,
    rows,
)
from tests.support.clock import Clock
from tests.support.wait import until

T = TypeVar("T")


async def test_work_starts_with_the_commit_and_is_removed_with_its_effect(
    record: Database, clock: Clock
) -> None:
    """A row runs as soon as its transaction commits, and its effect replaces it."""
    executor = Executor(record, "a", clock)
    seen: list[Work] = []

    async def handle(work: Work) -> Effect:
        seen.append(work)
        return result("done")

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await record.write(lambda tx: executor.enqueue(tx, "test", "k", b"\x00payload"))
        await until(empty(record), "the row to be done", seconds=5)
    assert [(work.key, work.payload, work.attempts) for work in seen] == [("k", b"\x00payload", 0)]
    assert await results(record) == ["done"]


async def test_work_of_a_failed_transaction_does_not_exist(record: Database, clock: Clock) -> None:
    """Work that was enqueued in a transaction that is undone never runs."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle()))

    def write(tx: Tx) -> None:
        executor.enqueue(tx, "test", "k")
        raise ValueError

    with pytest.raises(ValueError):
        await record.write(write)
    assert await rows(record) == []


async def test_a_queue_without_a_handler_is_refused(record: Database) -> None:
    """A misspelt queue fails the transaction instead of leaving work that never runs."""
    executor = Executor(record, "a")
    with pytest.raises(ValueError, match="tset"):
        await record.write(lambda tx: executor.enqueue(tx, "tset", "k"))


async def test_an_effect_that_fails_leaves_the_work(record: Database, clock: Clock) -> None:
    """When the effect cannot be written the row stays, with the failure, and nothing is written."""
    executor = Executor(record, "a", clock)

    async def handle(work: Work) -> Effect:
        def write(tx: Tx) -> None:
            result("half")(tx)
            raise ValueError("no")

        return write

    executor.register(Queue("test", handle, delays=(100.0,)))
    async with at_work(executor):
        await put(executor, record, "k")

        async def failed() -> bool:
            return bool((await row(record))["attempts"] == 1)

        await until(failed, "the failure to be noted")
    assert await results(record) == []


async def test_rows_of_a_key_run_one_after_the_other_and_keys_in_parallel(record: Database) -> None:
    """Four keys are at work together, while each key's rows keep their order and never overlap."""
    executor = Executor(record, "a")
    together = asyncio.Barrier(4)
    running: Counter[str] = Counter()
    order: defaultdict[str, list[int]] = defaultdict(list)

    async def handle(work: Work) -> Effect:
        running[work.key] += 1
        assert running[work.key] == 1
        number = int(work.payload)
        if number == 0:
            await together.wait()
        await asyncio.sleep(0)
        order[work.key].append(number)
        running[work.key] -= 1
        return result(work.id)

    executor.register(Queue("test", handle, delays=()))

    def write(tx: Tx) -> None:
        for number, key in itertools.product(range(4), "abcd"):
            executor.enqueue(tx, "test", key, str(number).encode())

    async with at_work(executor), asyncio.timeout(20):
        await record.write(write)
        await until(empty(record), "all rows")
    assert order == {key: [0, 1, 2, 3] for key in "abcd"}
    assert len(await results(record)) == 16


async def test_seq_decides_within_a_key(record: Database) -> None:
    """Rows that were enqueued in the wrong order run in the order of their numbers."""
    executor = Executor(record, "a")
    first = Held()
    order: list[bytes] = []

    async def handle(work: Work) -> Effect | None:
        if not order:
            await first(work)
        order.append(work.payload)
        return None

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await put(executor, record, "k", payload=b"5", seq=5)
        await until(lambda: first.started, "the first row")
        for number in (9, 7, 3):
            await put(executor, record, "k", payload=b"%d" % number, seq=number)
        first.go.set()
        await until(empty(record), "all rows")
    assert order == [b"5", b"3", b"7", b"9"]


async def test_concurrency_is_bounded(record: Database) -> None:
    """No more rows than allowed are at work at once, and all get done."""
    executor = Executor(record, "a")
    running = 0
    most = 0
    full = asyncio.Event()

    async def handle(work: Work) -> Effect:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.005)
        running -= 1
        return result(work.id)

    executor.register(Queue("test", handle, concurrency=3))
    async with at_work(executor):
        await put(executor, record, *(f"k{number}" for number in range(20)))
        await until(empty(record), "all rows")
    assert most == 3
    assert len(await results(record)) == 20


async def test_a_busy_queue_does_not_hold_up_another(record: Database) -> None:
    """A queue whose places are all taken leaves other queues alone."""
    executor = Executor(record, "a")
    held = Held()
    executor.register(Queue("slow", held, concurrency=1))
    executor.register(Queue("quick", Hurdle()))
    async with at_work(executor):
        await put(executor, record, "a", "b", queue="slow")
        await until(lambda: held.started, "the slow row")
        await put(executor, record, "c", queue="quick")

        async def done() -> bool:
            return len(await results(record)) == 1

        await until(done, "the quick row", seconds=5)
        assert len(held.started) == 1
        held.go.set()
        await until(empty(record), "the slow rows")


async def test_retries_come_at_0_1_2_4_8_seconds_and_then_the_row_is_parked(
    record: Database, clock: Clock
) -> None:
    """Each retry becomes due exactly when it should, and the sixth failure parks the row."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle))
    async with at_work(executor):
        await put(executor, record, "k")
        for attempt, delay in enumerate(DELAYS, start=1):

            async def failed(attempt: int = attempt) -> bool:
                return int((await row(record))["attempts"]) >= attempt

            if delay == 0:
                continue  # Retried at once, so that the next failure is what can be seen.
            await until(failed, f"failure {attempt}")
            assert hurdle.calls["k"] == attempt
            assert (await row(record))["due_at"] == clock() + delay
            clock.advance(delay - 0.001)
            assert not await due(record, clock())
            clock.advance(0.001)
            assert await due(record, clock())
            executor.wake()

        async def parked() -> bool:
            return bool((await row(record))["state"] == "parked")

        await until(parked, "the row to be parked")
        clock.advance(3600)
        assert not await due(record, clock())
    assert hurdle.calls["k"] == 6
    history = json.loads((await row(record))["history"])
    assert [entry["attempt"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[0]["error"] == "RuntimeError: no k today"
    assert [b["at"] - a["at"] for a, b in itertools.pairwise(history)] == pytest.approx(DELAYS)


@pytest.mark.parametrize(("told", "wait"), [(3.5, 3.5), (0.0, 1.0), (-5.0, 1.0), (1e9, MAX_TOLD)])
async def test_a_retry_waits_as_long_as_it_was_told(
    record: Database, clock: Clock, told: float, wait: float
) -> None:
    """A failure that says when to come back is believed, within bounds; delays never shrink."""
    executor = Executor(record, "a", clock)

    async def handle(work: Work) -> None:
        raise Unavailable("BUSY", told)

    executor.register(Queue("test", handle, delays=(1.0,)))
    async with at_work(executor):
        await put(executor, record, "k")

        async def failed() -> bool:
            return bool((await row(record))["attempts"] == 1)

        await until(failed, "the failure")
        assert (await row(record))["due_at"] == clock() + wait


async def test_a_permanent_failure_parks_at_once(record: Database, clock: Clock) -> None:
    """A handler that says that no retry can help is not called again."""
    executor = Executor(record, "a", clock)
    calls = 0

    async def handle(work: Work) -> None:
        nonlocal calls
        calls += 1
        raise Permanent("never")

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: _parked(record), "the row to be parked")
    assert calls == 1


async def test_a_parked_row_blocks_its_own_key_only(record: Database, clock: Clock) -> None:
    """Rows behind a parked one wait; the rows of other keys are done."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle("bad"), delays=()))
    async with at_work(executor):
        await put(executor, record, "bad", "good", "bad", "good")

        async def left() -> bool:
            return [found["key"] for found in await rows(record)] == ["bad", "bad"]

        await until(left, "the good rows")
        await until(lambda: _parked(record), "the row to be parked")
    assert [found["state"] for found in await rows(record)] == ["parked", "ready"]


async def test_an_operator_retries_a_parked_row(record: Database, clock: Clock) -> None:
    """An unparked row has all its attempts again, and the rows behind it follow in order."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle, delays=(0.0,)))
    async with at_work(executor):
        await put(executor, record, "k", "k")
        await until(lambda: _parked(record), "the row to be parked")
        assert hurdle.calls["k"] == 2
        [parked] = await record.read(parked_items)
        assert (parked.queue, parked.key, parked.attempts) == ("test", "k", 2)

        await record.write(lambda tx: table.unpark(tx, parked.id, clock()))
        executor.wake()
        await until(lambda: _parked(record), "the row to be parked again")
        assert hurdle.calls["k"] == 4

        hurdle.failing.clear()
        assert await record.write(lambda tx: table.unpark(tx, parked.id, clock()))
        executor.wake()
        await until(empty(record), "both rows")
        assert not await record.write(lambda tx: table.unpark(tx, parked.id, clock()))
    assert len(await results(record)) == 2


async def test_an_operator_discards_a_parked_row(record: Database, clock: Clock) -> None:
    """A discarded row is gone without an effect, and the row behind it runs."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle, delays=()))
    async with at_work(executor):
        await put(executor, record, "k", "k")
        await until(lambda: _parked(record), "the row to be parked")
        first, second = await rows(record)
        assert not await record.write(lambda tx: table.discard(tx, second["id"]))
        hurdle.failing.clear()
        assert await record.write(lambda tx: table.discard(tx, first["id"]))
        executor.wake()
        await until(empty(record), "the second row")
    assert await results(record) == [second["id"]]


async def test_parked_rows_are_listed_in_pages(record: Database, clock: Clock) -> None:
    """The list of parked rows goes on after an id and leaves other rows out."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle("a", "b", "c"), delays=()))
    async with at_work(executor):
        await put(executor, record, "a", "b", "c")

        async def all_parked() -> bool:
            return len(await record.read(parked_items)) == 3

        await until(all_parked, "three parked rows")
    page = await record.read(lambda tx: parked_items(tx, most=2))
    rest = await record.read(lambda tx: parked_items(tx, after=page[-1].id, most=2))
    assert [found.key for found in page + rest] == ["a", "b", "c"]


async def test_expedite_runs_what_waits_now(record: Database, clock: Clock) -> None:
    """A timer of a key runs before its time, a parked row gets new attempts, others stay."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle, delays=(0.0,), ahead=3600.0))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: _parked(record), "the row to be parked")
        for key in ("k", "other"):
            await put(executor, record, key, due_at=clock() + 3600)
        hurdle.failing.clear()
        await record.write(lambda tx: table.expedite(tx, "test", "k", clock()))
        executor.wake()

        async def left() -> bool:
            return [found["key"] for found in await rows(record)] == ["other"]

        await until(left, "both rows of the key")
    assert hurdle.calls == {"k": 4}


async def test_a_timer_runs_when_it_is_due(record: Database) -> None:
    """On the wall clock, a row runs at its time and not only at the next poll."""
    executor = Executor(record, "a")
    ran: list[float] = []
    loop = asyncio.get_running_loop()

    async def handle(work: Work) -> None:
        ran.append(loop.time())

    executor.register(Queue("test", handle))
    async with at_work(executor):
        begun = loop.time()
        await put(executor, record, "k", due_at=time.time() + 0.3)
        await until(lambda: ran, "the timer")
    assert 0.25 <= ran[0] - begun < 0.8


async def test_a_handler_that_takes_too_long_is_ended(record: Database, clock: Clock) -> None:
    """A handler is cancelled at its timeout, and that is a failure like any other."""
    executor = Executor(record, "a", clock)
    held = Held()
    executor.register(Queue("test", held, timeout=0.05, delays=()))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: _parked(record), "the row to be parked")
    assert "TimeoutError" in (await row(record))["history"]


async def test_a_cancellation_inside_a_handler_is_a_failure(record: Database, clock: Clock) -> None:
    """A handler whose own call was cancelled fails at once, and does not wait for its lease."""
    executor = Executor(record, "a", clock)

    async def handle(work: Work) -> None:
        raise asyncio.CancelledError

    executor.register(Queue("test", handle, delays=()))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: _parked(record), "the row to be parked", seconds=5)


async def test_held_work_runs_in_the_callers_context(record: Database, clock: Clock) -> None:
    """Nobody else runs held work, and its handler sees the context of who runs it."""
    executor = Executor(record, "a", clock)
    here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="background")
    seen: list[str] = []

    async def handle(work: Work) -> Effect:
        seen.append(here.get())
        return result(work.id)

    executor.register(Queue("test", handle))
    async with at_work(executor):
        work = await record.write(lambda tx: executor.enqueue_held(tx, "test", "k"))
        executor.wake()
        await asyncio.sleep(0.05)
        assert not seen
        here.set("caller")
        await executor.run(work)
    assert seen == ["caller"]
    assert await results(record) == [work.id]
    assert await rows(record) == []


async def test_held_work_that_fails_tells_its_caller_and_is_tried_again(
    record: Database, clock: Clock
) -> None:
    """The caller gets the handler's exception; the background does the retry."""
    executor = Executor(record, "a", clock)
    hurdle = Hurdle("k")
    executor.register(Queue("test", hurdle, delays=(0.0, 0.0)))
    work = await record.write(lambda tx: executor.enqueue_held(tx, "test", "k"))
    with pytest.raises(RuntimeError, match="no k today"):
        await executor.run(work)
    hurdle.failing.clear()
    async with at_work(executor):
        await until(empty(record), "the retry")
    assert hurdle.calls["k"] == 2


async def test_held_work_outlives_its_caller(record: Database, clock: Clock) -> None:
    """Work goes on when the call that began it is cancelled."""
    executor = Executor(record, "a", clock)
    held = Held()
    executor.register(Queue("test", held))
    work = await record.write(lambda tx: executor.enqueue_held(tx, "test", "k"))
    caller = asyncio.create_task(executor.run(work))
    await until(lambda: held.started, "the handler")
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    held.go.set()
    await executor.drain()
    assert await results(record) == [work.id]


async def test_drain_waits_for_what_runs_and_starts_nothing(record: Database, clock: Clock) -> None:
    """A drained executor has finished what it had begun and leaves the rest in the table."""
    executor = Executor(record, "a", clock)
    held = Held()
    executor.register(Queue("test", held, concurrency=2))
    async with at_work(executor):
        await put(executor, record, "a", "b", "c")
        await until(lambda: len(held.started) == 2, "two rows")
        draining = asyncio.create_task(executor.drain())
        await asyncio.sleep(0)
        held.go.set()
        await draining
        assert [found["key"] for found in await rows(record)] == ["c"]
        await put(executor, record, "d")
        await asyncio.sleep(0.05)
        assert len(held.started) == 2


async def test_drain_does_not_wait_for_ever(record: Database, clock: Clock) -> None:
    """Work that does not end in time is cut off, without a failure, and left to the next life."""
    executor, held = Executor(record, "a", clock), Held()
    executor.register(Queue("test", held))
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: held.started, "the row")
        await executor.drain(0.05)
    assert (await row(record))["attempts"] == 0
    following = Executor(record, "a", clock)
    following.register(Queue("test", Hurdle()))
    async with at_work(following):
        await until(empty(record), "the row, again")


class Gate(Database):
    """A database whose writes can be held up, or fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.failures = 0

    async def write(self, fn: Callable[[Tx], T]) -> T:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("gone fishing")
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return await self._database.write(fn)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        return await self._database.read(fn)

    def exclusive(self, name: str) -> contextlib.AbstractAsyncContextManager[Lock]:
        return self._database.exclusive(name)

    async def close(self) -> None:
        await self._database.close()


async def test_a_failure_is_noted_when_the_database_is_back(record: Database, clock: Clock) -> None:
    """Work that fails while nothing can be written is tried again then, not after its lease."""
    gate = Gate(record)
    executor = Executor(gate, "a", clock)
    seen: list[Work] = []

    async def handle(work: Work) -> None:
        seen.append(work)
        if len(seen) == 1:
            gate.failures = 2
            raise RuntimeError("no luck")

    executor.register(Queue("test", handle))
    async with at_work(executor):
        await record.write(lambda tx: executor.enqueue(tx, "test", "k"))
        await until(empty(record), "the row to be done", seconds=10)
    assert [(work.attempts, work.deaths) for work in seen] == [(0, 0), (1, 0)]


async def test_drain_includes_what_is_being_claimed(record: Database, clock: Clock) -> None:
    """Rows that are being leased when the drain begins are finished before it ends."""
    gate = Gate(record)
    executor = Executor(gate, "a", clock)
    executor.register(Queue("test", Hurdle()))
    async with at_work(executor):
        await until(lambda: not gate.waiting, "the executor to be idle")
        await asyncio.sleep(0.05)
        gate.open.clear()
        await record.write(lambda tx: executor.enqueue(tx, "test", "k"))
        await until(lambda: gate.waiting, "the claim")
        draining = asyncio.create_task(executor.drain())
        await asyncio.sleep(0.02)
        assert not draining.done()
        gate.open.set()
        await draining
        assert await rows(record) == []
    assert len(await results(record)) == 1


async def test_a_database_that_was_away_is_used_again(record: Database, clock: Clock) -> None:
    """Neither a claim nor a completion that the database refuses loses work or repeats effects."""
    gate = Gate(record)
    executor = Executor(gate, "a", clock)
    hurdle = Hurdle()
    executor.register(Queue("test", hurdle))
    async with at_work(executor):
        await asyncio.sleep(0.05)
        gate.failures = 1
        await put(executor, record, "k")  # The claim fails.
        await until(empty(record), "the work", seconds=5)
        assert hurdle.calls["k"] == 1

        gate.open.clear()
        await put(executor, record, "l")
        await until(lambda: gate.waiting, "the claim")
        gate.failures = 2  # The completion fails, and so does the note of it.
        gate.open.set()
        await until(lambda: not gate.failures, "both failures")
        clock.advance(36)
        executor.wake()
        await until(empty(record), "the work, again")
    assert len(await results(record)) == 2


async def test_work_goes_on_with_the_trace_of_its_cause(record: Database, clock: Clock) -> None:
    """A handler runs in the trace in which its work was enqueued."""
    executor = Executor(record, "a", clock)
    seen: list[str] = []

    async def handle(work: Work) -> None:
        seen.append(telemetry.trace_id())

    executor.register(Queue("test", handle))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with telemetry.use_trace({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}):
        await put(executor, record, "k")
    async with at_work(executor):
        await until(lambda: seen, "the handler")
    assert seen == [trace]


async def test_replicas_share_the_work_and_keep_the_order(
    record: Database, database_url: str, service: str
) -> None:
    """With two executors, and rows that overtake others, no row runs twice and no key at once.

    On PostgreSQL each executor has connections of its own.
    """
    databases = [record]
    if database_url.startswith("postgresql"):
        databases.append(await open_database(database_url, service))
    running: Counter[str] = Counter()
    overlaps: list[str] = []

    async def handle(work: Work) -> Effect:
        running[work.key] += 1
        if running[work.key] > 1:
            overlaps.append(work.key)
        await asyncio.sleep(0.001)
        running[work.key] -= 1
        return result(work.id)

    replicas = [Executor(databases[-1], "one"), Executor(databases[0], "two")]
    for replica in replicas:
        replica.register(Queue("test", handle))

    async def feed(executor: Executor, database: Database) -> None:
        for number in range(30):
            await put(executor, database, "a", "b", "c", "d", seq=1000 - number)

    async with at_work(replicas[0]), at_work(replicas[1]):
        await asyncio.gather(feed(replicas[0], databases[-1]), feed(replicas[1], databases[0]))
        await until(empty(record), "all rows")
    assert overlaps == []
    done = await results(record)
    assert len(done) == len(set(done)) == 240
    for database in databases[1:]:
        await database.close()


async def _parked(database: Database) -> bool:
    return bool(await database.read(parked_items))
