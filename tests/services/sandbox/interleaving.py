"""Finds interleavings and crashes of a step, its compensation and the executor behind both.

A service under test runs on gates: before each transaction and each call to the outside, and again
after it, it waits until the test lets it go on, fails it, does it and loses the answer, or does it
much later. A crash ends everything that waits at a gate; what was committed stays. So hypothesis
chooses every order of events, and which of them never happen.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, TypeVar

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from accord.errors import ServiceError
from services.runtime import executor as runtime_executor
from services.runtime import serve
from services.runtime.database import (
    CommitUnknown,
    Database,
    DatabaseUnavailable,
    Tx,
    open_database,
)
from services.runtime.executor import Executor
from services.runtime.ids import uuid7
from services.runtime.migrations import migrate
from tests.services.sandbox.world import World

T = TypeVar("T")
Late = Callable[[], Awaitable[object]]

SETTINGS = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
LIVE = 6
"""Calls in progress at most."""


class Fate(Enum):
    """What becomes of an action that waits at a gate."""

    GO = "done"
    FAIL = "not done"
    LOSE = "done, but the answer is lost"
    LATE = "not done, but it may happen later"


FATES = st.sampled_from(
    [Fate.GO, Fate.GO, Fate.GO, Fate.GO, Fate.FAIL, Fate.LOSE, Fate.LATE, Fate.LATE]
)


class Lost(Exception):
    """Nobody knows whether the outside has done it."""


@dataclass
class Gate:
    """Where one life of the service waits."""

    late: list[Late]
    """What may still reach the outside; it outlives a crash."""
    tickets: list[asyncio.Future[Fate]] = field(default_factory=list)
    inflight: int = 0
    is_open: bool = False
    is_dead: bool = False

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """A call to the outside."""
        fate = await self._permit()
        if fate is Fate.LATE:
            self.late.append(work)
        if fate in (Fate.FAIL, Fate.LATE):
            raise Lost
        result = await self.count(work)
        if fate is Fate.LOSE:
            raise Lost
        await self._permit()
        return result

    async def commit(self, work: Callable[[], Awaitable[T]]) -> T:
        """A transaction."""
        fate = await self._permit()
        if fate in (Fate.FAIL, Fate.LATE):
            raise DatabaseUnavailable("as decided")
        result = await self.count(work)
        if fate is Fate.LOSE:
            raise CommitUnknown("as decided")
        await self._permit()
        return result

    async def count(self, work: Callable[[], Awaitable[T]]) -> T:
        self.inflight += 1
        try:
            return await work()
        finally:
            self.inflight -= 1

    async def _permit(self) -> Fate:
        if self.is_dead:
            raise asyncio.CancelledError
        if self.is_open:
            return Fate.GO
        ticket: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self.tickets.append(ticket)
        return await ticket

    def step(self, index: int, fate: Fate) -> None:
        """Decide about one of those that wait."""
        self.tickets.pop(index % len(self.tickets)).set_result(fate)

    def open(self) -> None:
        """Let everybody go on, from now on."""
        self.is_open = True
        while self.tickets:
            self.step(0, Fate.GO)

    def kill(self) -> None:
        """End everybody who waits, and whoever comes."""
        self.is_dead = True
        while self.tickets:
            self.tickets.pop().cancel()

    async def quiet(self) -> None:
        """Wait until nothing goes on by itself: everybody is at the gate or has ended."""
        spins = 0
        while spins < 25:  # More turns of the loop than lie between any two gates.
            await asyncio.sleep(0)
            spins = 0 if self.inflight else spins + 1


class GatedDatabase(Database):
    """A database whose transactions wait at the gate; those that only read need not."""

    def __init__(self, inner: Database, gate: Gate, *, reads: bool) -> None:
        self._inner = inner
        self._gate = gate
        self._reads = reads

    async def write(self, fn: Callable[[Tx], T]) -> T:
        return await self._gate.commit(lambda: self._inner.write(fn))

    async def read(self, fn: Callable[[Tx], T]) -> T:
        through = self._gate.commit if self._reads else self._gate.count
        return await through(lambda: self._inner.read(fn))

    def exclusive(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._inner.exclusive(name)

    async def close(self) -> None:
        raise NotImplementedError


@dataclass
class Bench:
    """What outlives the examples: a loop, the service's database, and the outside."""

    runner: asyncio.Runner
    world: World
    channel: grpc.aio.Channel
    """Leads to the sandbox, with interceptors."""
    database: Database

    @staticmethod
    async def open_books(url: str, name: str, migrations: list[str]) -> Database:
        """The database of a service, with the runtime's tables."""
        database = await open_database(url, name)
        await migrate(database, "runtime", serve.MIGRATIONS)
        await migrate(database, name, migrations)
        return database


@dataclass
class Call:
    """One call to the service under test."""

    task: asyncio.Task[Any]
    order: str
    undoes: bool
    undone_before: bool
    """Whether the order had been undone, for certain, before this call began."""
    checked: bool = False


class Interleaving(RuleBasedStateMachine):
    """Does and undoes a step of two orders in every order of events."""

    bench: ClassVar[Bench]
    variants: ClassVar[list[str]]
    """Ways to do the step."""

    def __init__(self) -> None:
        super().__init__()
        self.orders = [uuid7(), uuid7()]
        self.chosen: dict[str, str] = {}
        self.undone: set[str] = set()
        self.wanted_undone: set[str] = set()
        self.calls: list[Call] = []
        self.late: list[Late] = []
        self.now = time.time()
        self.run(self.boot())

    @abstractmethod
    def build(self, gate: Gate, database: Database, executor: Executor) -> None:
        """Make the servicer under test."""

    @abstractmethod
    async def perform(self, order: str, variant: str) -> str:
        """Do the step; returns the id of what it made."""

    @abstractmethod
    async def undo(self, order: str) -> None:
        """Undo the step."""

    @abstractmethod
    async def check_books(self, order: str, variant: str, *, undone: bool) -> None:
        """Compare our books with the outside's ledger once all is over."""

    @abstractmethod
    async def is_unfinished(self, order: str) -> bool:
        """Whether an undo was decided but not confirmed."""

    def run(self, work: Any) -> Any:
        return self.bench.runner.run(work)

    async def boot(self) -> None:
        """Begin a life of the process."""
        self.gate = Gate(self.late)
        executor = Executor(
            GatedDatabase(self.bench.database, self.gate, reads=False), "me", lambda: self.now
        )
        self.executor = executor
        books = GatedDatabase(self.bench.database, self.gate, reads=True)
        self.build(self.gate, books, executor)
        self.background = asyncio.create_task(executor.serve())
        await self.gate.quiet()

    async def start(self, order: str, work: Awaitable[Any], *, undoes: bool) -> None:
        task = asyncio.ensure_future(work)
        self.calls.append(Call(task, order, undoes, order in self.undone))
        await self.settle()

    async def settle(self) -> None:
        await self.gate.quiet()
        for call in self.calls:
            if call.task.done() and not call.checked:
                call.checked = True
                self.check(call)

    def check(self, call: Call) -> None:
        """Judge the end of a call."""
        if call.task.cancelled():
            return
        error = call.task.exception()
        if error is None and call.undoes:
            self.undone.add(call.order)
        elif error is None:
            assert not call.undone_before, "a step succeeded after it had been undone"
        else:
            assert isinstance(error, Lost | DatabaseUnavailable | ServiceError), repr(error)

    def is_busy(self) -> bool:
        return sum(not call.task.done() for call in self.calls) >= LIVE

    @precondition(lambda self: not self.is_busy())
    @rule(index=st.integers(0, 1), choice=st.integers(0, 7))
    def does(self, index: int, choice: int) -> None:
        order = self.orders[index]
        variant = self.chosen.setdefault(order, self.variants[choice % len(self.variants)])
        self.run(self.start(order, self.perform(order, variant), undoes=False))

    @precondition(lambda self: not self.is_busy())
    @rule(index=st.integers(0, 1))
    def undoes(self, index: int) -> None:
        order = self.orders[index]
        self.wanted_undone.add(order)
        self.run(self.start(order, self.undo(order), undoes=True))

    @precondition(lambda self: self.gate.tickets)
    @rule(steps=st.lists(st.tuples(st.integers(0, 31), FATES), min_size=1, max_size=6))
    def goes_on(self, steps: list[tuple[int, Fate]]) -> None:
        for index, fate in steps:
            if self.gate.tickets:
                self.gate.step(index, fate)
                self.run(self.settle())
        if self.background.done():  # Without its executor the process ends, and is started again.
            self.crashes()

    @precondition(lambda self: self.late)
    @rule(index=st.integers(0, 31))
    def arrives_late(self, index: int) -> None:
        self.run(self.deliver(index % len(self.late)))

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.executor.wake()
        self.run(self.settle())

    @precondition(lambda self: self.gate.tickets)
    @rule()
    def crashes(self) -> None:
        self.run(self.end_life())
        self.run(self.boot())

    async def end_life(self) -> None:
        self.gate.kill()
        tasks = [self.background, *(call.task for call in self.calls)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.settle()

    async def deliver(self, index: int) -> None:
        try:
            await self.late.pop(index)()
        except grpc.aio.AioRpcError as error:
            if not ServiceError.from_rpc(error).refusal:
                raise

    def teardown(self) -> None:
        try:
            self.run(self.finish())
        finally:
            self.run(self.end_life())

    async def finish(self) -> None:
        """Let everything end, ask again for what has no answer yet, and compare the books."""
        self.gate.open()
        await asyncio.gather(*(call.task for call in self.calls), return_exceptions=True)
        await self.settle()
        parked = await self.drain()
        for order in self.orders:
            assert order in parked or not await self.is_unfinished(order)
        # As the saga does: every step that was begun gets an answer, then the same for undoing.
        for order, variant in self.chosen.items():
            await self.answer(self.perform(order, variant), may_be_refused=True)
        for order in self.wanted_undone:
            await self.answer(self.undo(order), may_be_refused=False)
        while self.late:
            await self.deliver(0)
        await self.drain()
        for order in self.orders:
            await self.check_books(
                order, self.chosen.get(order, ""), undone=order in self.wanted_undone
            )

    async def answer(self, work: Awaitable[object], *, may_be_refused: bool) -> None:
        try:
            await work
        except ServiceError as error:
            if not (may_be_refused and error.refusal):
                raise

    async def drain(self) -> set[str]:
        """Let the executor do all that is left; returns the keys that wait for an operator."""
        self.now += 60.0  # Leases of what was lost run out.
        async with asyncio.timeout(5):
            while await self.bench.database.read(_ready):
                self.now += 10.0
                self.executor.wake()
                await asyncio.sleep(0.002)
        parked = await self.bench.database.read(runtime_executor.parked)
        await self.bench.database.write(
            lambda tx: tx.execute("DELETE FROM work WHERE state = 'parked'")
        )
        return {row.key for row in parked}


def _ready(tx: Tx) -> list[Any]:
    return list(tx.all("SELECT id FROM work WHERE state = 'ready'"))


def explore(machine: type[Interleaving], bench: Bench) -> None:
    """Run a machine on a bench."""
    run_state_machine_as_test(
        type(machine.__name__, (machine,), {"bench": bench}), settings=SETTINGS
    )
