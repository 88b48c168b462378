"""Finds interleavings and crashes of a step, its compensation and the executor behind both.

A service under test runs on gates: before each transaction and each call to the outside, and again
after it, it waits until the test lets it go on, fails it, does it and loses the answer, or does it
much later. A crash ends everything that waits at a gate; what was committed stays, unless a copy of
the database from before is put back. So hypothesis chooses every order of events, and which of them
never happen.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import grpc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accord.errors import ServiceError
from accord_runtime import process
from accord_runtime.database import (
    CommitUnknown,
    Database,
    DatabaseUnavailable,
    Lock,
    Tx,
    open_database,
)
from accord_runtime.database.migrations import migrate
from accord_runtime.grpc.ids import uuid7
from accord_runtime.work.executor import Executor
from tests.runtime.work.support import parked_items
from tests.services.sandbox.world import World, running_world

T = TypeVar("T")
Late = Callable[[], Awaitable[object]]

ORDERS = 5
"""Orders in a story: most of what happens to an order happens before it is undone."""
LIVE = 6
"""Calls in progress at most."""
LONG = 20
"""More steps than any call has."""


class Fate(Enum):
    """What becomes of an action that waits at a gate."""

    GO = "done"
    FAIL = "not done"
    LOSE = "done, but the answer is lost"
    LATE = "not done, but it may happen later"


@dataclass(frozen=True, slots=True)
class Fates:
    """What becomes of whoever is next: there is much to lose outside, and commits mostly work."""

    inside: Fate
    outside: Fate


FATES = st.builds(
    Fates,
    inside=st.sampled_from([Fate.GO] * 10 + [Fate.FAIL, Fate.LOSE]),
    outside=st.sampled_from([Fate.GO, Fate.GO, Fate.FAIL, Fate.LOSE, Fate.LATE, Fate.LATE]),
)
GOOD = Fates(Fate.GO, Fate.GO)


class Kind(Enum):
    """What may happen next."""

    DO = "the step is asked for, and its call runs"
    UNDO = "its undoing is asked for, and its call runs"
    RUN = "somebody who waits runs: some steps without trouble, and then one with a fate"
    LATE = "what was thought lost arrives outside"
    OUTSIDE = "the outside does something by itself"
    TIME = "time passes"
    CRASH = "the process dies and is started again"
    RESTORE = "the same, on a copy of the database from before the order"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happens; which of its numbers count is up to its kind."""

    kind: Kind
    order: int
    choice: int
    length: int
    fates: Fates


STORIES = st.lists(
    st.builds(
        Happening,
        kind=st.sampled_from(
            [Kind.DO] * 5
            + [Kind.UNDO] * 4
            + [Kind.RUN] * 2
            + [Kind.LATE]
            + [Kind.OUTSIDE, Kind.TIME, Kind.CRASH, Kind.RESTORE]
        ),
        order=st.integers(0, ORDERS - 1),
        choice=st.integers(0, LIVE),
        # Long runs end one call while another stands still.
        length=st.sampled_from([0, 1, 1, 2, 2, 2, 3, 4, 5, LONG, LONG, LONG, LONG, LONG]),
        fates=FATES,
    ),
    min_size=10,
    max_size=40,
)


def _one(kind: Kind, length: int = LONG, outside: Fate = Fate.GO) -> Happening:
    return Happening(kind, 0, 0, length, Fates(Fate.GO, outside))


KNOWN = [
    # Its answer is held back while it is undone.
    [_one(Kind.DO, 2), _one(Kind.UNDO), _one(Kind.RUN)],
    # It is done, nobody knows, and the outside lets nobody undo it any more.
    [_one(Kind.DO, 2, Fate.LOSE), _one(Kind.OUTSIDE), _one(Kind.UNDO), _one(Kind.DO)],
    # It reaches the outside after it was undone.
    [_one(Kind.DO, 2, Fate.LATE), _one(Kind.UNDO), _one(Kind.LATE)],
    # The process dies before the answer is written down; before the undoing is confirmed.
    [_one(Kind.DO, 2), _one(Kind.CRASH), _one(Kind.UNDO, 4), _one(Kind.CRASH)],
    # A repeat and its first call finish in the wrong order.
    [_one(Kind.DO, 2), _one(Kind.DO), _one(Kind.UNDO), _one(Kind.DO), _one(Kind.RUN)],
    # It was done, or undone, and nobody here knows.
    [_one(Kind.DO), _one(Kind.RESTORE), _one(Kind.UNDO)],
    [_one(Kind.UNDO), _one(Kind.RESTORE), _one(Kind.DO)],
    # Nor does the outside let anybody undo it any more.
    [_one(Kind.DO), _one(Kind.RESTORE), _one(Kind.OUTSIDE), _one(Kind.UNDO), _one(Kind.DO)],
]
"""Where mistakes are most likely: some of them are too rare to be left to chance."""


class Lost(Exception):
    """Nobody knows whether the outside has done it."""


@dataclass
class Gate:
    """Where one life of the service waits."""

    late: list[Late]
    """What may still reach the outside; it outlives a crash."""
    tickets: list[asyncio.Future[Fates]] = field(default_factory=list)
    inflight: int = 0
    is_open: bool = False
    is_dead: bool = False

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """A call to the outside."""
        fate = (await self._permit()).outside
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
        fate = (await self._permit()).inside
        if fate is Fate.FAIL:
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

    async def _permit(self) -> Fates:
        if self.is_dead:
            raise asyncio.CancelledError
        if self.is_open:
            return GOOD
        ticket: asyncio.Future[Fates] = asyncio.get_running_loop().create_future()
        self.tickets.append(ticket)
        return await ticket

    def step(self, index: int, fates: Fates) -> None:
        """Decide about one of those that wait."""
        self.tickets.pop(index % len(self.tickets)).set_result(fates)

    def open(self) -> None:
        """Let everybody go on, from now on."""
        self.is_open = True
        while self.tickets:
            self.step(0, GOOD)

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

    def exclusive(self, name: str) -> AbstractAsyncContextManager[Lock]:
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
    outside: Database
    """The sandbox's own."""


@contextmanager
def running_bench(home: Path, url: str, name: str, migrations: list[str]) -> Iterator[Bench]:
    """A sandbox, and the database of a service at a URL; by default a file in `home`."""
    url = url or f"sqlite:///{home}/{name}.db"

    async def enter(stack: AsyncExitStack) -> Bench:
        shop, world = await stack.enter_async_context(running_world(home))
        database = await open_database(url, name)
        stack.push_async_callback(database.close)
        await migrate(database, "runtime", process.MIGRATIONS)
        await migrate(database, name, migrations)
        outside = shop.runtimes["sandbox"].database
        return Bench(runner, world, shop.channel("sandbox"), database, outside)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(enter(stack))
        finally:
            runner.run(stack.aclose())


class Standing(Enum):
    """Where a step stands."""

    OPEN = "not asked for, or without an answer"
    DONE = "done"
    UNDOING = "to be undone; not confirmed"
    NOT_DONE = "undone, or refused"


@dataclass
class Call:
    """One call to the service under test."""

    task: asyncio.Task[Any]
    order: str
    undoes: bool
    undone_before: bool
    """Whether the order had been undone, for certain, before this call began."""
    checked: bool = False


class Interleaving(ABC):
    """Does and undoes a step of some orders; one object plays one story."""

    variants: ClassVar[list[str]]
    """Ways to do the step."""
    table: ClassVar[str]
    """Where its service keeps what it knows of an order."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.orders = [uuid7() for _ in range(ORDERS)]
        self.chosen: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.refused: set[str] = set()
        self.wanted_undone: set[str] = set()
        self.undone: set[str] = set()
        self.lost: set[str] = set()
        self.calls: list[Call] = []
        self.late: list[Late] = []
        self.now = time.time()

    @abstractmethod
    def build(self, database: Database, executor: Executor) -> None:
        """Make the servicer under test; what it asks outside goes through `self.gate.call`."""

    @abstractmethod
    async def perform(self, order: str, variant: str) -> str:
        """Do the step; returns the id of what it made."""

    @abstractmethod
    async def undo(self, order: str) -> bool:
        """Undo the step; False when the outside refuses to."""

    @abstractmethod
    async def standing(self, order: str) -> Standing:
        """Where the step of an order stands in our books."""

    @abstractmethod
    async def check_books(self, order: str, variant: str, *, undone: bool | None) -> None:
        """Compare our books with the outside's ledger once all is over.

        `variant` is empty if the step was never asked for, and `undone` None if its undoing was
        not; else it is what the last `undo` returned.
        """

    async def act_outside(self, order: str) -> None:  # noqa: B027 (not every outside acts)
        """What the outside may do by itself."""

    async def play(self, story: list[Happening]) -> None:
        """Let it all happen, and see whether the end is right."""
        await self.boot()
        try:
            for happening in story:
                await self.happen(happening)
            await self.finish()
        finally:
            await self.end_life()

    async def boot(self) -> None:
        """Begin a life of the process."""
        self.gate = Gate(self.late)
        self.executor = Executor(
            GatedDatabase(self.bench.database, self.gate, reads=False), "me", lambda: self.now
        )
        self.build(GatedDatabase(self.bench.database, self.gate, reads=True), self.executor)
        self.background = asyncio.create_task(self.executor.serve())
        # It takes back its leases, before and after which nothing can happen yet.
        for _ in range(2):
            await self.gate.quiet()
            self.gate.step(0, GOOD)
        await self.gate.quiet()

    async def end_life(self) -> None:
        """End the process without warning."""
        self.gate.kill()
        tasks = [self.background, *(call.task for call in self.calls)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.settle()

    async def happen(self, happening: Happening) -> None:
        order, choice = self.orders[happening.order], happening.choice
        busy = sum(not call.task.done() for call in self.calls) >= LIVE
        match happening.kind:
            case Kind.DO if not busy:
                variant = self.variants[choice % len(self.variants)]
                variant = self.chosen.setdefault(order, variant)
                self.start(order, self.perform(order, variant), undoes=False)
                await self.run(-1, happening)
            case Kind.UNDO if not busy:
                self.wanted_undone.add(order)
                self.start(order, self.undo(order), undoes=True)
                await self.run(-1, happening)
            case Kind.RUN:
                await self.run(choice, happening)
            case Kind.LATE if self.late:
                await self.deliver(choice % len(self.late))
            case Kind.OUTSIDE:
                await self.act_outside(order)
            case Kind.TIME:
                self.now += (1.0, 10.0, 60.0)[choice % 3]
                self.executor.wake()
            case Kind.CRASH:
                await self.end_life()
                await self.boot()
            case Kind.RESTORE:
                await self.end_life()
                await self.bench.database.write(partial(self.lose, order=order))
                await self.boot()
        await self.settle()

    def lose(self, tx: Tx, order: str) -> None:
        """Put back what the database knew of an order before anything was asked for: nothing."""
        self.lost.add(order)
        tx.execute(f"DELETE FROM {self.table} WHERE order_id = :order", {"order": order})
        for table in ("work", "events"):
            tx.execute(f"DELETE FROM {table} WHERE key = :order", {"order": order})

    def start(self, order: str, work: Awaitable[Any], *, undoes: bool) -> None:
        task = asyncio.ensure_future(work)
        self.calls.append(Call(task, order, undoes, order in self.undone))

    async def run(self, index: int, happening: Happening) -> None:
        """Let one of those at the gate go on, at most to the end of its call."""
        await self.settle()
        ended = sum(call.checked for call in self.calls)
        for fates in (*[GOOD] * happening.length, happening.fates):
            if not self.gate.tickets or sum(call.checked for call in self.calls) > ended:
                break
            self.gate.step(index, fates)
            await self.settle()
            # Whoever has just moved is the last to have come to the gate.
            index = -1

    async def deliver(self, index: int) -> None:
        try:
            await self.late.pop(index)()
        except grpc.aio.AioRpcError as error:
            if not ServiceError.from_rpc(error).refusal:
                raise

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
            if call.task.result():
                self.undone.add(call.order)
        elif error is None:
            assert not call.undone_before, "a step succeeded after it had been undone"
            made = call.task.result()
            assert self.made.setdefault(call.order, made) == made
        else:
            assert isinstance(error, Lost | DatabaseUnavailable | ServiceError), repr(error)
            if isinstance(error, ServiceError) and error.refusal and not call.undoes:
                self.refused.add(call.order)

    async def finish(self) -> None:
        """Let everything end, ask again for what has no answer yet, and compare the books."""
        self.gate.open()
        await asyncio.gather(*(call.task for call in self.calls), return_exceptions=True)
        await self.settle()
        parked = await self.drain()
        for order in self.orders:
            standing = await self.standing(order)
            assert order in parked or standing is not Standing.UNDOING
            assert order not in self.undone - self.lost or standing is Standing.NOT_DONE
        # As the saga does: what was begun is asked for until there is an answer.
        undone = {order: await self.undo(order) for order in sorted(self.wanted_undone)}
        for order, variant in self.chosen.items():
            try:
                await self.perform(order, variant)
            except ServiceError as error:
                if not error.refusal:
                    raise
        while self.late:
            await self.deliver(0)
        await self.drain()
        for order in self.orders:
            assert order not in self.refused or await self.standing(order) is Standing.NOT_DONE
            await self.check_books(order, self.chosen.get(order, ""), undone=undone.get(order))

    async def drain(self) -> set[str]:
        """Let the executor do all that is left; returns the keys that wait for an operator."""
        self.now += 60.0  # Leases of what was lost run out.
        async with asyncio.timeout(60):
            while await self.bench.database.read(_ready):
                self.now += 10.0
                self.executor.wake()
                await asyncio.sleep(0.002)
        parked = await self.bench.database.read(parked_items)
        await self.bench.database.write(
            lambda tx: tx.execute("DELETE FROM work WHERE state = 'parked'")
        )
        return {row.key for row in parked}


def _ready(tx: Tx) -> list[Any]:
    return list(tx.all("SELECT id FROM work WHERE state = 'ready'"))


def explore(machine: type[Interleaving], bench: Bench, *, examples: int) -> None:
    """Play the known stories, and so many others, on a bench."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(story=STORIES)
    def play(story: list[Happening]) -> None:
        bench.runner.run(machine(bench).play(story))

    for story in KNOWN:
        play = example(story=story)(play)
    play()
