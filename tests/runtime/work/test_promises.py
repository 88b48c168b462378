"""The numbers that the pages promise of background work, as they are written there."""

import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from accord.errors import Unavailable
from accord_runtime.database import Database, Row, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.saga import Sagas
from accord_runtime.work import ownership
from accord_runtime.work.executor import Executor, Handler, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import Held, Hurdle, at_work, put, row, rows
from tests.support.clock import Clock
from tests.support.wait import until


def executor_of(
    database: Database, clock: Clock, handler: Handler, *, owner: str = "a", **options: float
) -> Executor:
    """A process that does the work of the queue "test"."""
    executor = Executor(database, owner, clock)
    executor.register(Queue("test", handler, **options))  # type: ignore[arg-type]
    return executor


async def failures(database: Database, count: int) -> Row:
    """The only row of work, once it has failed so many times."""

    async def failed() -> bool:
        return bool((await row(database))["attempts"] >= count)

    await until(failed, f"failure {count}")
    return await row(database)


async def test_six_attempts_within_15_seconds(record: Database, clock: Clock) -> None:
    """Work that fails is tried again at once, 1, 2, 4 and 8 s later, and is then parked."""
    executor = executor_of(record, clock, Hurdle("k"))
    async with at_work(executor):
        await put(executor, record, "k")
        for count, delay in [(2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0)]:
            found = await failures(record, count)
            assert (found["state"], found["due_at"]) == ("ready", clock() + delay)
            clock.advance(delay)
            executor.wake()
        found = await failures(record, 6)
    assert found["state"] == "parked"
    times = [entry["at"] for entry in json.loads(found["history"])]
    assert [later - sooner for sooner, later in itertools.pairwise(times)] == [0, 1, 2, 4, 8]


@pytest.mark.parametrize(("told", "wait"), [(59.0, 59.0), (61.0, 60.0)])
async def test_a_failure_is_believed_up_to_a_minute(
    record: Database, clock: Clock, told: float, wait: float
) -> None:
    """Work comes again no sooner than the failure itself says, and within 60 s."""

    async def busy(work: Work) -> None:
        raise Unavailable("BUSY", told)

    executor = executor_of(record, clock, busy)
    async with at_work(executor):
        await put(executor, record, "k")
        assert (await failures(record, 1))["due_at"] == clock() + wait


async def test_the_latest_ten_failures_are_kept_in_500_characters(
    record: Database, clock: Clock
) -> None:
    """An operator sees the last ten of twelve attempts, each in one line that has an end."""

    async def fail(work: Work) -> None:
        raise RuntimeError("x\n" * 600)

    executor = executor_of(record, clock, fail, delays=[0.0] * 11)  # type: ignore[arg-type]
    async with at_work(executor):
        await put(executor, record, "k")
        found = json.loads((await failures(record, 12))["history"])
    assert [entry["attempt"] for entry in found] == list(range(3, 13))
    assert {len(entry["error"]) for entry in found} == {500}
    assert not any("\n" in entry["error"] for entry in found)


@pytest.mark.parametrize(("timeout", "lease"), [(30.0, 35.0), (7.0, 12.0)])
async def test_a_lease_is_five_seconds_longer_than_its_work(
    record: Database, clock: Clock, timeout: float, lease: float
) -> None:
    """Who uses all of its time has still five seconds to write down what it has done."""
    held = Held()
    executor = executor_of(record, clock, held, timeout=timeout)
    async with at_work(executor):
        await put(executor, record, "k")
        await until(lambda: held.started, "the work to begin")
        assert (await row(record))["lease_until"] == clock() + lease
        held.go.set()


async def test_at_most_sixteen_at_once(record: Database, clock: Clock) -> None:
    """A queue that says nothing runs 16 pieces of work at once; others are looked at meanwhile."""
    held, other = Held(), Hurdle()
    executor = executor_of(record, clock, held)
    executor.register(Queue("other", other))
    async with at_work(executor):
        await put(executor, record, *map(str, range(20)))
        await until(lambda: len(held.started) == 16, "sixteen")
        await put(executor, record, "k", queue="other")
        await until(lambda: other.calls, "another look")
        assert len(held.started) == 16
        held.go.set()
        await until(lambda: len(held.started) == 20, "the rest")


async def died(database: Database, clock: Clock, *keys: str) -> list[Row]:
    """The rows of work after a process has died that had begun those of these keys."""
    held = Held()
    executor = executor_of(database, clock, held)
    async with at_work(executor):
        await until(lambda: {work.key for work in held.started} == set(keys), "the work to begin")
    await executor_of(database, clock, Hurdle()).take_back()
    return await rows(database)


async def test_the_fifth_death_parks(record: Database, clock: Clock) -> None:
    """Work whose process dies runs again after 0, 1, 2 and 4 s; the fifth time it is parked."""
    await put(executor_of(record, clock, Hurdle()), record, "pill")
    for wait in (0.0, 1.0, 2.0, 4.0):
        (found,) = await died(record, clock, "pill")
        assert (found["state"], found["due_at"]) == ("ready", clock() + wait)
        clock.advance(wait)
    (found,) = await died(record, clock, "pill")
    assert (found["state"], found["lease_until"]) == ("parked", 0)


async def test_from_the_second_death_on_one_at_a_time(record: Database, clock: Clock) -> None:
    """What has died once runs beside its like, what has died twice beside good work only."""
    executor = executor_of(record, clock, Hurdle())
    await put(executor, record, "early", due_at=clock() + 1.0)
    await put(executor, record, "one", "two")
    await died(record, clock, "one", "two")
    await died(record, clock, "one", "two")
    clock.advance(1.0)
    held = Held()

    async def handle(work: Work) -> Effect | None:
        return None if work.key in ("early", "late") else await held(work)

    def left(*keys: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return {found["key"] for found in await rows(record)} == set(keys)

        return check

    executor = executor_of(record, clock, handle)
    async with at_work(executor):
        await put(executor, record, "late", "good")
        await until(left("one", "two", "good"), "what ends at once")
        await put(executor, record, "last")
        await until(lambda: "last" in {work.key for work in held.started}, "another look")
        started = {work.key for work in held.started}
        assert started >= {"good", "last"}
        assert len(started & {"one", "two"}) == 1
        held.go.set()
        await until(left(), "the other one")


@pytest.mark.parametrize(("ahead", "waits"), [(60.0, 60.0), (61.0, 0.0)])
async def test_nothing_waits_longer_than_its_queue_may(
    record: Database, clock: Clock, ahead: float, waits: float
) -> None:
    """Work that is due later than in a minute was written by a wrong clock, and is due now."""
    await put(executor_of(record, Clock(clock() + ahead), Hurdle()), record, "k")
    await executor_of(record, clock, Hurdle()).take_back()
    assert (await row(record))["due_at"] == clock() + waits


@pytest.mark.parametrize(("ahead", "lost"), [(3599.0, False), (3601.0, True)])
async def test_a_lease_that_ends_in_more_than_an_hour_is_none(
    record: Database, clock: Clock, ahead: float, lost: bool
) -> None:
    """A lease was given by a clock that was ahead if it ends later than in 3,600 s."""
    wrong = executor_of(record, Clock(clock() + ahead - 35.0), Hurdle(), owner="gone")
    await record.write(lambda tx: wrong.enqueue_held(tx, "test", "k"))
    await executor_of(record, clock, Hurdle()).take_back()
    assert ((await row(record))["lease_until"] == 0) is lost


@pytest.mark.parametrize(("step", "said"), [(0.9, False), (1.1, True), (-0.9, False), (-1.1, True)])
async def test_a_step_of_the_clock_by_a_second_is_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    step: float,
    said: bool,
) -> None:
    """A clock that is set by more than a second, either way, is in the log; a slow one is not."""
    database = await open_database(f"sqlite:///{tmp_path}/test.db", "test")
    await migrate(database, "runtime", MIGRATIONS)
    executor = Executor(database, "a")
    await executor.take_back()
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + step)
    with caplog.at_level(logging.WARNING):
        await executor.take_back()
    assert ("the clock was set" in caplog.text) is said
    await database.close()


@pytest.fixture
async def shared(postgres_url: str, service: str) -> AsyncIterator[Database]:
    """A database that replicas share."""
    database = await open_database(postgres_url, service)
    await migrate(database, "runtime", MIGRATIONS)
    yield database
    await database.close()


@pytest.mark.parametrize(("silent", "taken"), [(2.4, False), (2.5, True)])
async def test_a_replica_that_is_silent_for_two_and_a_half_seconds_is_dead(
    shared: Database, clock: Clock, silent: float, taken: bool
) -> None:
    """Its work is taken then, and with the next beat of another: within three seconds."""
    held = Held()
    gone = executor_of(shared, clock, held, owner="gone")
    async with at_work(gone):
        await put(gone, shared, "k")
        await until(lambda: held.started, "the work to begin")
    await gone.take_back()  # its last word
    clock.advance(silent)
    await executor_of(shared, clock, Hurdle(), owner="here").take_back()
    assert ((await row(shared))["lease_until"] == 0) is taken
    assert ownership.SILENCE + ownership.BEAT <= 3.0
    held.go.set()
    await gone.drain()


async def test_a_saga_has_twelve_attempts_in_five_minutes(record: Database, clock: Clock) -> None:
    """A step is parked after 12 attempts that take 300 s, and 32 sagas are at work at once."""
    executor = Executor(record, "a", clock)
    Sagas(record, executor, clock)
    queue = executor._queues["saga"]
    assert (len(queue.delays) + 1, sum(queue.delays)) == (12, 300.0)
    assert tuple(queue.delays[:5]) == (0, 1, 2, 4, 8)
    assert (queue.concurrency, queue.timeout) == (32, 15.0)
