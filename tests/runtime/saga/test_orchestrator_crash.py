"""Sagas whose process dies at every commit and whose steps fail at random: the books balance."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.errors import FailedPrecondition, ServiceError
from accord_runtime.database import CommitUnknown, Database, DatabaseUnavailable, Lock, Tx
from accord_runtime.saga import Definition, Kind, Phase, Saga, Sagas, Step
from accord_runtime.saga.orchestrator import load
from accord_runtime.work.executor import Executor
from accord_runtime.work.table import Effect
from tests.runtime.work.support import result, results
from tests.support.clock import Clock
from tests.support.wait import until

T = TypeVar("T")

STEPS = (
    ("reserve", Kind.COMPENSATABLE),
    ("charge", Kind.COMPENSATABLE),
    ("note", Kind.COMPENSATABLE),
    ("ship", Kind.PIVOT),
    ("confirm", Kind.RETRIABLE),
)
ACTING = ("reserve", "charge", "ship", "confirm")
UNDOABLE = ("reserve", "charge")


class Outside:
    """The world that the steps act on: idempotent by key, and it remembers what came too late."""

    def __init__(self) -> None:
        self.accounts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.keys: set[str] = set()
        self.undone: defaultdict[str, list[str]] = defaultdict(list)
        self.failures: Counter[str] = Counter()
        self.refusing: set[str] = set()
        self.random: random.Random | None = None

    def do(self, saga: str, step: str, key: str) -> None:
        """Move one unit from "here" to the step's account."""
        self._fail(key)
        if step in self.refusing:
            raise FailedPrecondition("NO", "never")
        if key not in self.keys and step not in self.undone[saga]:
            self.keys.add(key)
            self._move(saga, "here", step)
        self._fail(key)

    def undo(self, saga: str, step: str, key: str) -> None:
        """Move it back, if it was moved; from now on it cannot be moved any more."""
        self._fail(key)
        if step not in self.undone[saga]:
            self.undone[saga].append(step)
            if self.accounts[saga][step]:
                self._move(saga, step, "here")
        self._fail(key)

    def _move(self, saga: str, source: str, target: str) -> None:
        self.accounts[saga][source] -= 1
        self.accounts[saga][target] += 1

    def _fail(self, key: str) -> None:
        if self.random is not None and self.random.random() < 0.2 and self.failures[key] < 6:
            self.failures[key] += 1
            raise ConnectionError("who knows whether that worked")


def definition(outside: Outside) -> Definition:
    """Five steps as an order has them."""

    def step(name: str, kind: Kind) -> Step:
        async def act(saga: str, key: str) -> Effect:
            await asyncio.sleep(0)
            if name in ACTING:
                outside.do(saga, name, key)
            return result(f"{saga} {name}")

        async def compensate(saga: str, key: str) -> None:
            await asyncio.sleep(0)
            outside.undo(saga, name, key)

        return Step(name, kind, act, compensate if name in UNDOABLE else None)

    def refused(tx: Tx, saga: str, step: str, error: ServiceError) -> None:
        result(f"{saga} refused {step}")(tx)

    def undone(tx: Tx, saga: str) -> None:
        result(f"{saga} undone")(tx)

    return Definition("test", 1, [step(*each) for each in STEPS], refused, undone)


class Fatal(Database):
    """A database at one of whose writes the process dies: before it, or right after the commit."""

    def __init__(self, database: Database, at: int, *, committed: bool) -> None:
        self._database = database
        self._left = at
        self._committed = committed
        self.dead = False

    async def write(self, fn: Callable[[Tx], T]) -> T:
        self._left -= 1
        if self._left > 0:
            return await self._database.write(fn)
        if self._left == 0 and self._committed:
            await self._database.write(fn)
        self.dead = True
        raise CommitUnknown("died")

    async def read(self, fn: Callable[[Tx], T]) -> T:
        if self.dead:
            raise DatabaseUnavailable("dead")
        return await self._database.read(fn)

    def exclusive(self, name: str) -> contextlib.AbstractAsyncContextManager[Lock]:
        return self._database.exclusive(name)

    async def close(self) -> None:
        await self._database.close()


class Process:
    """One life of a process that carries sagas through."""

    def __init__(self, database: Database, outside: Outside, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.executor = Executor(database, "process", clock)
        self.sagas = Sagas(database, self.executor, clock)
        self.definition = definition(outside)
        self.sagas.register(self.definition)
        self._serving: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Work in the background."""
        await self.executor.take_back()
        self._serving = asyncio.create_task(self.executor.serve())

    async def start(self, saga: str) -> None:
        """Begin a saga, as CreateOrder does."""
        start = partial(self.sagas.start, definition=self.definition, id=saga)
        work = await self.database.write(start)
        with contextlib.suppress(ConnectionError, ServiceError, DatabaseUnavailable):
            await self.executor.run(work)

    async def cancel(self, saga: str) -> None:
        """Have a saga undone, if its pivot has not been reached."""

        def write(tx: Tx) -> None:
            found = load(tx, saga, lock=True)
            if found is not None and found.position.step < 3 and not found.position.ended:
                self.sagas.cancel(tx, saga)

        await self.database.write(write)

    def hurry(self) -> None:
        """Let time pass, when nothing is running whose lease would end."""
        if not self.executor._tasks:
            self.clock.advance(61)
        self.executor.wake()

    async def die(self) -> None:
        """Stop in the middle of whatever it was doing."""
        tasks = [*self.executor._tasks, *([self._serving] if self._serving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def saga(database: Database, name: str) -> Saga:
    """A saga as it stands."""
    found = await database.read(lambda tx: load(tx, name))
    assert found is not None
    return found


async def ended(database: Database, *names: str) -> bool:
    """Whether all of these have ended."""
    return all([(await saga(database, name)).position.ended for name in names])


async def finish(process: Process, database: Database, *names: str) -> None:
    """Let a process end all of these, or die."""
    async with asyncio.timeout(60):
        while not await ended(database, *names):
            if isinstance(process.database, Fatal) and process.database.dead:
                return
            process.hurry()
            await asyncio.sleep(0.001)


async def check(database: Database, outside: Outside, name: str) -> None:
    """What must hold of a saga that has ended."""
    position = (await saga(database, name)).position
    accounts = {each: n for each, n in outside.accounts[name].items() if n and each != "here"}
    assert sum(outside.accounts[name].values()) == 0
    effects = Counter(each for each in await results(database) if each.split()[0] == name)
    assert max(effects.values()) == 1, "an effect happened twice"
    undone = outside.undone[name]
    if position.phase is Phase.DONE:
        assert accounts == dict.fromkeys(ACTING, 1)
        assert undone == []
        assert set(effects) == {f"{name} {step}" for step, _ in STEPS}
    else:
        assert position.phase is Phase.UNDONE
        assert accounts == {}
        assert f"{name} undone" in effects
        assert f"{name} ship" not in effects
        assert undone == sorted(undone, key=UNDOABLE.index, reverse=True)


@pytest.mark.parametrize("way", ["through", "refused", "cancelled"])
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
async def test_a_death_at_any_commit_is_recovered_from(
    record: Database, clock: Clock, way: str, committed: bool
) -> None:
    """Wherever the process dies, its next life ends the saga, with every effect exactly once."""
    for at in itertools.count(1):
        name, outside = f"s{at}", Outside()
        if way == "refused":
            outside.refusing.add("ship")
        second = Process(record, outside, clock)
        await record.write(partial(second.sagas.start, definition=second.definition, id=name))
        fatal = Fatal(record, at, committed=committed)
        first = Process(fatal, outside, clock)
        with contextlib.suppress(DatabaseUnavailable):
            await first.begin()
            if way == "cancelled":
                await first.cancel(name)
        await finish(first, record, name)
        await first.die()
        if fatal.dead:
            await second.begin()
            await finish(second, record, name)
            await second.die()
        await check(record, outside, name)
        if not fatal.dead:
            break
    assert at > (3 if way == "cancelled" else 5), "the process never died"


@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_books_balance_whatever_fails(record: Database, seed: int, count: int) -> None:
    """However steps fail, refuse, are cancelled and cut off, sagas end whole or not at all."""
    for table in ("saga", "work", "results"):
        await record.write(lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))  # type: ignore[misc]
    clock, outside = Clock(), Outside()
    dice = outside.random = random.Random(seed)
    if dice.random() < 0.3:
        outside.refusing.add(dice.choice(["reserve", "charge", "ship"]))
    names = [f"s{number}" for number in range(count)]
    process = Process(record, outside, clock)
    await process.begin()
    await asyncio.gather(*(process.start(name) for name in names))
    for _ in range(dice.randrange(4)):
        await asyncio.sleep(dice.random() / 200)
        if dice.random() < 0.5:
            await process.cancel(dice.choice(names))
        await process.die()
        process = Process(record, outside, clock)
        await process.begin()
    await finish(process, record, *names)
    for name in names:
        await check(record, outside, name)
    await process.die()


async def test_cancelling_and_stepping_do_not_wait_for_each_other(record: Database) -> None:
    """Cancellations that lock the same rows as the steps' effects meet no deadlock.

    PostgreSQL would break it after a second, and the transaction would be begun again.
    """
    await record.write(lambda tx: tx.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, n BIGINT)"))
    executor = Executor(record, "process")
    sagas = Sagas(record, executor)
    touched = 0

    def touch(tx: Tx, order: str) -> None:
        nonlocal touched
        touched += 1
        time.sleep(0.002)  # Long enough for the other to take its first lock, too.
        tx.execute("UPDATE orders SET n = n + 1 WHERE id = :id", {"id": order})
        time.sleep(0.002)

    async def act(order: str, key: str) -> Effect:
        return lambda tx: touch(tx, order)

    steps = [Step(f"s{n}", Kind.COMPENSATABLE, act, act) for n in range(4)]
    plan = Definition("test", 1, steps, lambda *_: None, lambda *_: None)
    sagas.register(plan)
    names = [f"o{n}" for n in range(20)]

    def begin(tx: Tx) -> None:
        for name in names:
            tx.execute("INSERT INTO orders (id, n) VALUES (:id, 0)", {"id": name})
            sagas.start(tx, plan, name)
        tx.execute("UPDATE work SET lease_until = 0")

    def cancel(tx: Tx, name: str) -> None:
        touch(tx, name)
        sagas.cancel(tx, name)

    async def cancel_all() -> None:
        for name in names:
            for _ in range(3):
                await record.write(partial(cancel, name=name))

    await record.write(begin)
    serving = asyncio.create_task(executor.serve())
    await asyncio.gather(cancel_all(), cancel_all())
    await until(lambda: ended(record, *names), "all sagas")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    row = await record.read(lambda tx: tx.one("SELECT SUM(n) AS n FROM orders"))
    assert row is not None
    assert touched == row["n"], "a transaction was begun again"
