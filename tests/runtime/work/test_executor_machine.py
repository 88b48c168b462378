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
from accord_runtime.work.table import LeaseLost, Work
from tests.runtime.conftest import RESULTS
from tests.runtime.work.support import parked_items, result, results
from tests.support.clock import Clock

T = TypeVar("T")

OWNERS = ("one", "two")
KEYS = ("a", "b")
DELAYS = (0.0, 3.0)


@dataclass(slots=True)
class Item:
    """What the model knows of a row."""

    key: str
    seq: int
    due: float
    attempts: int = 0
    parked: bool = False
    owner: str = ""
    lease: float = 0.0


@dataclass(slots=True)
class Model:
    """The rows as they should be, and what was done."""

    items: dict[str, Item] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def claimable(self, now: float) -> set[str]:
        """The first row of every key, if it is due and nothing of the key is leased."""
        found = set()
        for key in KEYS:
            ids = sorted(
                (name for name, item in self.items.items() if item.key == key),
                key=lambda name: (self.items[name].seq, name),
            )
            if not ids or any(self.items[name].lease > now for name in ids):
                continue
            first = self.items[ids[0]]
            if not first.parked and first.due <= now:
                found.add(ids[0])
        return found


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
        self.executors = {owner: Executor(self.database, owner, self.clock) for owner in OWNERS}
        for executor in self.executors.values():
            executor.register(Queue("test", _never, delays=DELAYS, timeout=10.0))
        self.queue = Queue("test", _never, DELAYS, timeout=10.0)

    @rule(key=st.sampled_from(KEYS), seq=st.integers(0, 2), later=st.sampled_from([0.0, 0.0, 5.0]))
    def enqueue(self, key: str, seq: int, later: float) -> None:
        now = self.clock()
        work = self._write(
            lambda tx: table.enqueue(tx, "test", key, now=now, due_at=now + later, seq=seq)
        )
        self.model.items[work.id] = Item(key, seq, now + later)

    @rule(owner=st.sampled_from(OWNERS), most=st.integers(1, 3))
    def claim(self, owner: str, most: int) -> None:
        now = self.clock()
        expected = self.model.claimable(now)
        claimed = self._write(
            lambda tx: table.claim(tx, "test", owner, now, most, lease=self.queue.lease)
        )
        assert {work.id for work in claimed} <= expected
        assert len(claimed) == min(most, len(expected))
        for work in claimed:
            item = self.model.items[work.id]
            assert work.attempts == item.attempts
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

    @rule(owner=st.sampled_from(OWNERS))
    def crash(self, owner: str) -> None:
        self.hands[owner].clear()
        self._run(self.executors[owner].take_back())
        for item in self.model.items.values():
            if item.owner == owner:
                item.lease = 0.0

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
                before = len(self.hands["one"])
                self.claim("one", 3)
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
        for name in ("work", "results"):
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
