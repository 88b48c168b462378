"""Whose turn it is: the oldest flows end first, and the newest do not wait for them."""

import asyncio
import statistics
from collections.abc import Callable, Mapping

import pytest

from accord_runtime.database import Database, Tx
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Queue
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import Held, Hurdle, at_work, empty, put, rows
from tests.support.clock import Clock
from tests.support.wait import until

STEPS = 4
PLACES = 8


class Flows:
    """Flows of some steps each, every step enqueued by the one before; notes which ran when."""

    def __init__(self, executor: Executor, database: Database) -> None:
        self.executor = executor
        self.database = database
        self.ran: list[tuple[str, int]] = []
        executor.register(Queue("test", self._handle, concurrency=PLACES))

    async def begin(self, *names: str) -> None:
        """Begin flows, each in a transaction of its own."""
        for name in names:
            await put(self.executor, self.database, name, payload=b"1")

    def ended(self, name: str) -> int:
        """How many steps had begun, of all flows, when the last one of this flow did."""
        return self.ran.index((name, STEPS)) + 1

    async def _handle(self, work: Work) -> Effect:
        step = int(work.payload)
        self.ran.append((work.key, step))
        await asyncio.sleep(0)

        def effect(tx: Tx) -> None:
            if step < STEPS:
                self.executor.enqueue(tx, "test", work.key, str(step + 1).encode())

        return effect


async def test_a_backlog_ends_flow_by_flow(record: Database) -> None:
    """The first flow ends at once and the median one half-way, instead of all at the end."""
    executor = Executor(record, "a")
    flows = Flows(executor, record)
    names = [f"flow {number}" for number in range(60)]
    await flows.begin(*names)
    async with at_work(executor):
        await until(empty(record), "the backlog")
    total = len(names) * STEPS
    assert flows.ended(names[0]) <= STEPS * PLACES
    median = statistics.median(flows.ended(name) for name in names)
    assert 0.4 * total <= median <= 0.6 * total


async def test_a_new_flow_does_not_wait_for_a_backlog(record: Database) -> None:
    """A flow that begins behind a backlog of sixty has ended when a tenth of that has."""
    executor = Executor(record, "a")
    flows = Flows(executor, record)
    names = [f"flow {number}" for number in range(60)]
    await flows.begin(*names)
    async with at_work(executor):
        await until(lambda: len(flows.ran) > PLACES, "the backlog to be worked on")
        await flows.begin("new")
        await until(empty(record), "all of it")
    waited = flows.ended("new") - flows.ran.index(("new", 1))
    assert waited <= STEPS * PLACES
    # Not only begun last, it would have ended last.
    assert flows.ended("new") < len(names) * STEPS - STEPS * PLACES


async def test_a_retry_that_is_due_has_its_flows_place(record: Database, clock: Clock) -> None:
    """Work that was tried before does not go behind flows that are younger than its own."""
    executor = Executor(record, "a", clock)
    order: list[str] = []
    hurdle = Hurdle("old")

    async def handle(work: Work) -> Effect:
        order.append(work.key)
        return await hurdle(work)

    executor.register(Queue("test", handle, delays=(5.0,), concurrency=1))
    async with at_work(executor):
        await put(executor, record, "old")
        await until(lambda: _waits(record), "the first attempt to fail")
    clock.advance(1.0)
    await put(executor, record, "younger", "youngest")
    clock.advance(5.0)
    hurdle.failing.clear()
    async with at_work(executor):
        await until(empty(record), "all work")
    assert order == ["old", "old", "younger", "youngest"]


async def test_places_of_the_newest_are_not_taken_by_the_oldest(
    record: Database, clock: Clock
) -> None:
    """Old work that hangs in its places leaves those of the newest to what is new."""
    executor = Executor(record, "a", clock)
    held, done = Held(), []

    async def handle(work: Work) -> Effect | None:
        if work.key.startswith("old"):
            return await held(work)
        done.append(work.key)
        return None

    executor.register(Queue("test", handle, concurrency=4))
    await put(executor, record, "old 1", "old 2", "old 3")
    clock.advance(1.0)
    async with at_work(executor):
        await until(lambda: len(held.started) == 3, "the old work to hang")
        for number in range(5):
            await put(executor, record, f"new {number}")
        await until(lambda: len(done) == 5, "the new work")
        held.go.set()
        await until(empty(record), "the old work")


async def test_what_is_enqueued_belongs_to_the_flow_of_the_work_at_hand(
    record: Database, clock: Clock
) -> None:
    """The flow is inherited by what an effect or a handler enqueues, held work included."""
    executor = Executor(record, "a", clock)
    began = clock()

    async def handle(work: Work) -> Effect:
        clock.advance(1.0)
        await record.write(lambda tx: executor.enqueue_held(tx, "next", "held"))
        return lambda tx: executor.enqueue(tx, "next", "by effect")

    executor.register(Queue("test", handle))
    executor.register(Queue("next", Held()))
    work = await record.write(lambda tx: executor.enqueue_held(tx, "test", "k"))
    await executor.run(work)
    found = {row["key"]: (row["flow_at"], row["created_at"]) for row in await rows(record)}
    assert found == {"held": (began, began + 1.0), "by effect": (began, began + 1.0)}


async def test_a_flow_cannot_begin_later_than_now(record: Database, clock: Clock) -> None:
    """A clock that is ahead elsewhere does not send its flows behind all others."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle()))
    await record.write(lambda tx: executor.enqueue(tx, "test", "k", flow_at=clock() + 3600.0))
    [row] = await rows(record)
    assert (row["flow_at"], row["due_at"]) == (clock(), clock())


async def test_work_of_the_version_before_is_done(record: Database, clock: Clock) -> None:
    """Rows without a flow, as the version before writes them, are served by their due time."""
    executor = Executor(record, "a", clock)
    executor.register(Queue("test", Hurdle()))
    await put(executor, record, "k")
    await record.write(lambda tx: tx.execute("UPDATE work SET flow_at = NULL"))
    [work] = await record.write(lambda tx: table.claim(tx, "test", "a", clock(), 1, lease=9.0))
    assert work.flow_at == work.created_at == clock()


@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_a_claim_among_much_work_reads_what_it_leases(
    record: Database, clock: Clock, order: str
) -> None:
    """Among 20,000 rows the next is found by an index that holds them in their order."""
    values = {"now": clock(), "queue": "test", "most": 1, "suspects": False}
    await record.write(_many(20_000, clock(), clock()))
    found = await record.write(_plan(table.READY % {"order": order, "others": ""}, values))
    assert "work_turn" in found
    assert "Sort" not in found
    assert "TEMP B-TREE" not in found


async def test_suspects_among_much_work_are_found_by_an_index(
    record: Database, clock: Clock
) -> None:
    """Among 20,000 rows, those that may kill their process are not looked for one by one."""
    await record.write(_many(20_000, clock(), clock()))
    assert "work_deaths" in await record.write(_plan(table.SUSPECTS, {}))


def _plan(sql: str, values: Mapping[str, object]) -> Callable[[Tx], str]:
    """How a statement is carried out."""

    def plan(tx: Tx) -> str:
        # Whoever plans knows how many there are.
        tx.execute("ANALYZE work")
        explain = "EXPLAIN" if tx.postgres else "EXPLAIN QUERY PLAN"
        return "\n".join(str(row) for row in tx.all(f"{explain} {sql}", values))

    return plan


def _many(count: int, now: float, due_at: float) -> Callable[[Tx], None]:
    """Write as much work at once."""

    def write(tx: Tx) -> None:
        tx.execute(
            "INSERT INTO work (id, queue, key, seq, payload, state, due_at, attempts, owner,"
            " lease_until, history, trace, created_at, flow_at, deaths)"
            " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
            " SELECT 'row' || i, 'test', 'key' || i, 0, :payload, 'ready', :due_at, 0, '',"
            " 0, '[]', '{}', :now, :now, 0 FROM n",
            {"count": count, "now": now, "due_at": due_at, "payload": b""},
        )

    return write


async def _waits(database: Database) -> bool:
    return [row["attempts"] for row in await rows(database)] == [1]


async def test_a_group_leaves_places_to_the_others(record: Database) -> None:
    """A group whose rows take for ever gets its share; another's, enqueued behind all, go on."""
    executor = Executor(record, "a")
    held = Held()
    ended: list[str] = []

    async def handle(work: Work) -> Effect | None:
        if work.key.startswith("slow"):
            return await held(work)
        ended.append(work.key)
        return None

    executor.register(Queue("test", handle, concurrency=PLACES, group=4, per_group=3))
    await put(executor, record, *(f"slow/{number}" for number in range(60)))
    await put(executor, record, *(f"fast/{number}" for number in range(20)))
    async with at_work(executor):
        await until(lambda: len(ended) == 20, "the other group")
        assert len(held.started) == 3
        held.go.set()
        await until(empty(record), "the backlog")
    assert len(held.started) == 60
