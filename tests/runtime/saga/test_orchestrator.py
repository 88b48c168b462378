"""Sagas on the executor: failures, refusals, cancellations and crashes, on both databases."""

import random
import statistics
from collections import Counter

import pytest

from accord.errors import FailedPrecondition, ServiceError, Unavailable
from accord_runtime.database import Conflict, Database, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.saga import Definition, Kind, Phase, Sagas, Step, state_machine
from accord_runtime.saga.definition import Action
from accord_runtime.saga.orchestrator import KEPT, QUEUE, SWEPT, Saga, load, sweep
from accord_runtime.work import table
from accord_runtime.work.executor import DELAYS, Executor
from accord_runtime.work.items import Item
from accord_runtime.work.table import Effect, Work
from tests.runtime.work.support import at_work, empty, parked_items, results
from tests.support.clock import Clock
from tests.support.wait import until


class World:
    """What the steps of a saga act on: one unit each, done and undone by key, idempotent."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.calls: list[str] = []

    def act(self, step: str, key: str, amount: int) -> None:
        """Do or undo a step once per key; undoing what was never done is nothing."""
        self.calls.append(key)
        if key in self.keys:
            return
        self.keys.add(key)
        if amount > 0 or self.held[step]:
            self.held[step] += amount


class Plan:
    """How the attempts of each step go: a list of what they answer, then success."""

    def __init__(self, world: World, answers: dict[str, list[str]]) -> None:
        self._world = world
        self._answers = answers

    def step(self, name: str, kind: Kind, *, undoable: bool = False) -> Step:
        """A step that follows the plan."""

        def action(amount: int) -> Action:
            async def run(saga: str, key: str) -> Effect | None:
                answer = (self._answers.get(name if amount > 0 else f"un{name}") or ["ok"]).pop(0)
                if answer == "refuse":
                    raise FailedPrecondition("NO")
                if answer == "fail":
                    raise Unavailable("AWAY")
                self._world.act(name, key, amount)
                if answer == "lost":
                    raise Unavailable("LOST")
                return None

            return run

        undo = action(-1) if undoable else None
        return Step(name, kind, action(1), undo)


def definition(plan: Plan) -> Definition:
    """Two steps that can be undone, a pivot, and one behind it."""

    def mark(tx: Tx, saga: str, text: str) -> None:
        values = {"id": saga, "text": text}
        tx.execute("INSERT INTO results (id, text) VALUES (:id, :text)", values)

    def refused(tx: Tx, saga: str, step: str, error: ServiceError) -> None:
        mark(tx, saga, f"refused {step} {error.reason}")

    return Definition(
        name="test",
        version=1,
        steps=(
            plan.step("a", Kind.COMPENSATABLE, undoable=True),
            plan.step("b", Kind.COMPENSATABLE, undoable=True),
            plan.step("p", Kind.PIVOT),
            plan.step("r", Kind.RETRIABLE),
        ),
        refused=refused,
        undone=lambda tx, saga: mark(tx, saga, "undone"),
    )


class Shop:
    """Sagas of one process that has just started."""

    def __init__(self, database: Database, clock: Clock, plan: Plan) -> None:
        self.database = database
        self.executor = Executor(database, "test", clock)
        self.sagas = Sagas(database, self.executor, clock)
        self.definition = definition(plan)
        self.sagas.register(self.definition)

    async def start(self, saga: str) -> Work:
        """Begin a saga."""
        return await self.database.write(lambda tx: self.sagas.start(tx, self.definition, saga))

    async def finish(self, clock: Clock) -> None:
        """Work, and let time pass, until nothing is left to do."""
        async with at_work(self.executor):
            done = empty(self.database)

            async def check() -> object:
                clock.advance(1.0)
                self.executor.wake()
                return await done()  # type: ignore[misc]

            await until(check, "all work is done")
            await self.executor.drain()


async def ended(database: Database, saga: str) -> Saga:
    """The saga as it is now."""
    found = await database.read(lambda tx: load(tx, saga))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("answers", "held", "phase"),
    [
        ({}, {"a": 1, "b": 1, "p": 1, "r": 1}, Phase.DONE),
        ({"b": ["fail", "lost", "fail"]}, {"a": 1, "b": 1, "p": 1, "r": 1}, Phase.DONE),
        ({"r": ["refuse", "fail"]}, {"a": 1, "b": 1, "p": 1, "r": 1}, Phase.DONE),
        ({"a": ["refuse"]}, {}, Phase.UNDONE),
        ({"b": ["refuse"]}, {"a": 0}, Phase.UNDONE),
        ({"p": ["refuse"], "unb": ["lost", "fail"]}, {"a": 0, "b": 0}, Phase.UNDONE),
    ],
    ids=["good", "failures", "retriable refuses", "first refuses", "second refuses", "pivot"],
)
async def test_ways_of_a_saga(
    record: Database,
    clock: Clock,
    answers: dict[str, list[str]],
    held: dict[str, int],
    phase: Phase,
) -> None:
    """Failures are retried, refusals are undone in reverse, and nothing stays half done."""
    world = World()
    shop = Shop(record, clock, Plan(world, {name: list(plan) for name, plan in answers.items()}))
    saga = uuid7()
    await shop.start(saga)
    clock.advance(60)  # Nobody runs the held step: its lease ends, and the executor finds it.
    await shop.finish(clock)

    assert (await ended(record, saga)).position.phase is phase
    assert world.held == Counter(held)
    # Every call of a step has the same key, so that whoever is called can know it.
    assert set(world.calls) <= {f"{saga}/{step}/{way}" for step in "abpr" for way in ("do", "undo")}
    marks = await results(record)
    assert marks == ([] if phase is Phase.DONE else [saga, saga])


async def test_what_has_ended_long_ago_is_removed(record: Database, clock: Clock) -> None:
    """After ninety days and not before, some at a time; not what runs, nor what was abandoned."""
    shop = Shop(record, clock, Plan(World(), {}))
    many = {Phase.DONE: SWEPT + 1}
    sagas = [(uuid7(), phase) for phase in Phase for _ in range(many.get(phase, 1))]

    def begin(tx: Tx) -> None:
        for saga, phase in sagas:
            shop.sagas.start(tx, shop.definition, saga)
            values = {"phase": phase, "id": saga}
            tx.execute("UPDATE saga SET phase = :phase WHERE id = :id", values)

    await record.write(begin)
    now = clock()
    assert await record.write(lambda tx: sweep(tx, now + KEPT - 1)) == 0
    removed = [await record.write(lambda tx: sweep(tx, now + KEPT)) for _ in range(3)]
    assert removed == [SWEPT, 2, 0]
    rows = await record.read(lambda tx: tx.all("SELECT phase FROM saga"))
    assert {row["phase"] for row in rows} == {Phase.FORWARD, Phase.BACKWARD, Phase.ABANDONED}


async def test_a_duplicate_start_is_refused(record: Database, clock: Clock) -> None:
    """There is one saga per id."""
    shop = Shop(record, clock, Plan(World(), {}))
    saga = uuid7()
    await shop.start(saga)
    with pytest.raises(Conflict):
        await shop.start(saga)


async def test_a_cancelled_saga_undoes_the_step_whose_outcome_is_open(
    record: Database, clock: Clock
) -> None:
    """The answer of `b` was lost; cancelling undoes it too, and does not wait for the back-off."""
    world = World()
    shop = Shop(record, clock, Plan(world, {"b": ["lost"] * 50}))
    saga = uuid7()
    work = await shop.start(saga)
    await shop.executor.run(work)
    async with at_work(shop.executor):
        await until(lambda: world.held["b"] == 1, "b was done")
        await record.write(lambda tx: shop.sagas.cancel(tx, saga))
        await shop.finish(clock)

    assert (await ended(record, saga)).position.phase is Phase.UNDONE
    assert world.held == Counter({"a": 0, "b": 0})


async def test_a_held_step_runs_in_the_callers_hands(record: Database, clock: Clock) -> None:
    """The caller of `run` gets the step's error, and the saga goes on in the background."""
    world = World()
    shop = Shop(record, clock, Plan(world, {"a": ["fail"]}))
    saga = uuid7()
    work = await shop.start(saga)
    with pytest.raises(Unavailable):
        await shop.executor.run(work)
    await shop.finish(clock)
    assert (await ended(record, saga)).position.phase is Phase.DONE


async def test_a_step_that_keeps_failing_waits_for_the_operator(
    record: Database, clock: Clock
) -> None:
    """Its work is parked with its history, never dropped, and goes on when it is retried."""
    world = World()
    failures = ["fail"] * (len(DELAYS) + 50)
    shop = Shop(record, clock, Plan(world, {"unb": failures, "p": ["refuse"]}))
    saga = uuid7()
    await shop.start(saga)
    clock.advance(60)
    async with at_work(shop.executor):

        async def parked() -> list[Item]:
            clock.advance(5.0)
            shop.executor.wake()
            return await record.read(parked_items)

        await until(parked, "the work is parked")
    (item,) = await parked()
    assert "UNAVAILABLE" in item.last_error
    assert (await ended(record, saga)).position.phase is Phase.BACKWARD
    failures.clear()
    failures.append("ok")
    await record.write(lambda tx: table.unpark(tx, item.id, clock()))
    await shop.finish(clock)
    assert world.held == Counter({"a": 0, "b": 0})


@pytest.mark.parametrize("seed", range(12))
async def test_crashes_at_any_commit_leave_nothing_half_done(
    record: Database, clock: Clock, seed: int
) -> None:
    """The process dies again and again around its commits; the saga still comes to one end."""
    source = random.Random(seed)
    world = World()
    words = ["ok", "fail", "lost", "ok", "ok"]
    answers = {name: source.choices(words, k=6) for name in ("a", "b", "p", "r", "una", "unb")}
    if seed % 2:
        answers["p"] = ["fail", "refuse"]
    plan = Plan(world, answers)
    saga = uuid7()
    await Shop(record, clock, plan).start(saga)
    for _ in range(60):
        # A life of the process: it may die before or after its next commits.
        life = Shop(record, clock, plan)
        await life.executor.take_back()
        clock.advance(20.0)
        queue = life.executor._queues[QUEUE]
        for _ in range(source.randrange(1, 3)):
            claimed = await record.write(
                lambda tx, queue=queue: table.claim(  # type: ignore[misc]
                    tx, queue.name, "test", clock(), 1, lease=queue.lease
                )
            )
            if not claimed:
                break
            if source.random() < 0.3:
                break  # It dies before it has called the step,
            try:
                effect = await queue.handler(claimed[0])
            except ServiceError:
                break
            if source.random() < 0.3:
                break  # or between the step's answer and the commit.
            await record.write(
                lambda tx, work=claimed[0], effect=effect: table.complete(  # type: ignore[misc]
                    tx, work, "test", effect
                )
            )
        if (await ended(record, saga)).position.ended:
            break
    await Shop(record, clock, plan).finish(clock)

    final = await ended(record, saga)
    if final.position.phase is Phase.DONE:
        assert world.held == Counter({"a": 1, "b": 1, "p": 1, "r": 1})
    else:
        assert sum(world.held.values()) == 0
        assert await results(record) == [saga, saga]


async def test_a_backlog_of_sagas_ends_saga_by_saga(record: Database, clock: Clock) -> None:
    """Of sagas that wait for their next step the oldest ends first, and half of them half-way."""
    world = World()
    shop = Shop(record, clock, Plan(world, {}))
    names = [f"saga {number:03}" for number in range(200)]
    for name in names:
        clock.advance(0.001)
        await shop.executor.run(await shop.start(name))
    world.calls.clear()
    await shop.finish(clock)
    ends = [world.calls.index(f"{name}/r/do") / len(world.calls) for name in names]
    print(f"share of all steps done when the first saga ends: {ends[0]:.2f}, the median:", end=" ")
    print(f"{statistics.median(ends):.2f}")
    assert ends[0] < 0.4
    assert statistics.median(ends) < 0.7


async def test_a_step_that_was_skipped_leaves_the_saga_its_place(
    record: Database, clock: Clock
) -> None:
    """Whoever moves a saga on, its next work has the age of the saga and not of the move."""
    shop = Shop(record, clock, Plan(World(), {}))
    began = clock()
    await shop.start("s")
    clock.advance(60.0)

    def skip(tx: Tx) -> None:
        saga = load(tx, "s", lock=True)
        assert saga is not None
        tx.execute("DELETE FROM work")
        after = state_machine.succeeded(shop.definition.steps, saga.position, cancelled=False)
        shop.sagas.advance(tx, saga, after, "skipped")

    await record.write(skip)
    assert await record.read(lambda tx: tx.value("SELECT flow_at FROM work")) == began
