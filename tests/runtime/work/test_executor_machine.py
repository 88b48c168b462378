"""The executor's table against a model: random claims, failures, crashes and clocks."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from accord_runtime.database import Database, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Permanent, Queue
from accord_runtime.work.ownership import SILENCE
from accord_runtime.work.table import DEATHS, SUSPECT, LeaseLost, Work
from tests.runtime.conftest import RESULTS
from tests.runtime.work.support import parked_items, result, results
from tests.support.clock import Clock

T = TypeVar("T")

OWNERS = ("one", "two")
KEYS = ("a", "b", "c", "d")
DELAYS = (0.0, 3.0)


@dataclass(slots=True)
class Item:
    """What the model knows of a row."""

    key: str
    seq: int
    due: float
    flow: float
    attempts: int = 0
    parked: bool = False
    owner: str = ""
    lease: float = 0.0
    deaths: int = 0


@dataclass(slots=True)
class Model:
    """The rows as they should be, and what was done."""

    items: dict[str, Item] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    alive: dict[str, float] = field(default_factory=dict)
    """Replicas and until when they live; on PostgreSQL only."""

    def claimable(self, now: float, *, suspects: bool) -> list[str]:
        """The first row of every key, if it is due and nothing of the key is leased; by flow."""
        found = []
        for key in KEYS:
            ids = sorted(
                (name for name, item in self.items.items() if item.key == key),
                key=lambda name: (self.items[name].seq, name),
            )
            if not ids or any(self.items[name].lease for name in ids):
                continue
            first = self.items[ids[0]]
            if not first.parked and first.due <= now and (first.deaths >= SUSPECT) == suspects:
                found.append(ids[0])
        return sorted(found, key=lambda name: (self.items[name].flow, name))

    def look_after(self, owner: str, now: float, *, shared: bool, began: bool) -> None:
        """Count the deaths of those who had the rows that nobody will end."""
        dead = set()
        if shared:
            self.alive[owner] = now + SILENCE
            dead = {name for name, until in self.alive.items() if until <= now}
            for name in dead:
                del self.alive[name]
        for item in self.items.values():
            own = item.owner == owner
            over = item.lease <= now and (own or item.owner not in self.alive)
            if item.lease and (item.owner in dead or (own and not began) or over):
                item.lease = 0.0
                item.deaths += 1
                item.parked = item.deaths > len(DEATHS)
                item.due = now + (0.0 if item.parked else DEATHS[item.deaths - 1])


class ExecutorMachine(RuleBasedStateMachine):
    """Two processes share one table; each may crash, and forget what it was doing."""

    url = ""
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Model()
        self.hands: dict[str, list[Work]] = {owner: [] for owner in OWNERS}
        self.database: Database = self._run(self._open())
        self.executors = {owner: self._executor(owner) for owner in OWNERS}
        self.queue = Queue("test", _never, DELAYS, timeout=10.0)

    @rule(
        key=st.sampled_from(KEYS),
        seq=st.integers(0, 2),
        later=st.sampled_from([None, None, 5.0]),
        age=st.sampled_from([-1.0, 0.0, 4.0, 9.0]),
    )
    def enqueue(self, key: str, seq: int, later: float | None, age: float) -> None:
        now = self.clock()
        work = self._write(
            lambda tx: table.enqueue(
                tx,
                "test",
                key,
                now=now,
                due_at=None if later is None else now + later,
                flow_at=now - age,
                seq=seq,
            )
        )
        self.model.items[work.id] = Item(key, seq, now + (later or 0.0), now - max(age, 0.0))

    @rule(
        owner=st.sampled_from(OWNERS),
        oldest=st.integers(0, 3),
        newest=st.integers(0, 2),
        suspects=st.booleans(),
    )
    def claim(self, owner: str, oldest: int, newest: int, suspects: bool) -> None:
        now = self.clock()
        expected = self.model.claimable(now, suspects=suspects)
        lease = self.queue.lease
        claimed = self._write(
            lambda tx: table.claim(
                tx, "test", owner, now, oldest, newest, lease=lease, suspects=suspects
            )
        )
        others = expected[oldest:][::-1][:newest]
        assert [work.id for work in claimed] == expected[:oldest] + others
        for work in claimed:
            item = self.model.items[work.id]
            assert (work.attempts, work.deaths) == (item.attempts, item.deaths)
            assert work.flow_at == item.flow
            item.owner, item.lease = owner, work.lease_until
            self.hands[owner].append(work)

    @precondition(lambda self: any(self.hands.values()))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        owner, work = self._draw(data)
        if self._owns(owner, work):
            self._write(lambda tx: table.complete(tx, work, owner, result(work.id)))
            self._finish(work.id)
        else:
            with pytest.raises(LeaseLost):
                self._write(lambda tx: table.complete(tx, work, owner, result(work.id)))

    @precondition(lambda self: any(self.hands.values()))
    @rule(data=st.data(), permanent=st.booleans())
    def fail(self, data: st.DataObject, permanent: bool) -> None:
        owner, work = self._draw(data)
        error = Permanent("never") if permanent else RuntimeError("not now")
        self._run(self.executors[owner]._failed(self.queue, work, error))
        if self._owns(owner, work):
            item = self.model.items[work.id]
            item.parked = permanent or item.attempts >= len(DELAYS)
            item.due = self.clock() + (0.0 if item.parked else DELAYS[item.attempts])
            item.attempts += 1
            item.lease = 0.0
            item.deaths = 0

    @rule(owner=st.sampled_from(OWNERS))
    def crash(self, owner: str) -> None:
        self.hands[owner].clear()
        self.executors[owner] = self._executor(owner)
        self.look_after(owner, began=False)

    @rule(owner=st.sampled_from(OWNERS))
    def look_after(self, owner: str, began: bool = True) -> None:
        executor = self.executors[owner]
        executor._taken_back = began
        self._run(executor.take_back())
        shared = self.url.startswith("postgres")
        self.model.look_after(owner, self.clock(), shared=shared, began=began)

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 16.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(discard=st.booleans())
    def operate(self, discard: bool) -> None:
        now = self.clock()
        for parked in self._run(self.database.read(parked_items)):
            item = self.model.items[parked.id]
            assert item.parked
            if discard:
                assert self._write(partial(table.discard, id=parked.id))
                del self.model.items[parked.id]
            else:
                assert self._write(partial(table.unpark, id=parked.id, now=now))
                item.parked, item.attempts, item.due = False, 0, now

    def teardown(self) -> None:
        """After all this, everything that is left can be done, in order, and nothing was twice."""
        try:
            self.crash("one")
            self.operate(discard=False)
            while self.model.items:
                self.wait(16.0)
                self.look_after("one")
                self.wait(16.0)  # What is tried again is due.
                self.operate(discard=False)
                before = len(self.hands["one"])
                self.claim("one", 3, 0, suspects=False)
                self.claim("one", 3, 0, suspects=True)
                assert len(self.hands["one"]) > before, "work is left that nobody can claim"
                for work in self.hands["one"]:
                    self._write(lambda tx, w=work: table.complete(tx, w, "one", result(w.id)))  # type: ignore[misc]
                    self._finish(work.id)
                self.hands["one"].clear()
            assert self._run(results(self.database)) == sorted(self.model.done)
        finally:
            self._run(self.database.close())

    def _draw(self, data: st.DataObject) -> tuple[str, Work]:
        """Let go of some row that a process has in hand."""
        owner = data.draw(st.sampled_from([name for name in OWNERS if self.hands[name]]))
        hand = self.hands[owner]
        return owner, hand.pop(data.draw(st.integers(0, len(hand) - 1)))

    def _owns(self, owner: str, work: Work) -> bool:
        item = self.model.items.get(work.id)
        return item is not None and (item.owner, item.lease) == (owner, work.lease_until)

    def _finish(self, id: str) -> None:  # noqa: A002
        item = self.model.items.pop(id)
        self.model.done.append(id)
        ahead = [
            other
            for other, found in self.model.items.items()
            if found.key == item.key and (found.seq, other) < (item.seq, id) and other < id
        ]
        assert ahead == [], "a row was done before one that was there first"

    def _executor(self, owner: str) -> Executor:
        executor = Executor(self.database, owner, self.clock)
        executor.register(Queue("test", _never, delays=DELAYS, timeout=10.0))
        return executor

    def _run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def _write(self, fn: Callable[[Tx], T]) -> T:
        return self._run(self.database.write(fn))

    async def _open(self) -> Database:
        database = await open_database(self.url, "machine")
        await migrate(database, "runtime", MIGRATIONS)
        await migrate(database, "test", [RESULTS])
        for name in ("work", "results", "replica"):
            await database.write(lambda tx, name=name: tx.execute(f"DELETE FROM {name}"))  # type: ignore[misc]
        return database


async def _never(work: Work) -> None:
    raise AssertionError("the test does the work")


@pytest.mark.parametrize(("backend", "examples"), [("sqlite", 60), ("postgres", 30)])
def test_nothing_is_lost_or_done_twice_or_out_of_order(
    request: pytest.FixtureRequest, backend: str, examples: int
) -> None:
    """Whatever fails, crashes or takes too long: each row is done once, in its key's order."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        url = f"sqlite:///{Path(folder)}/machine.db"
        if backend == "postgres":
            url = request.getfixturevalue("postgres_url")
        machine = type("Machine", (ExecutorMachine,), {"url": url, "runner": runner})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
