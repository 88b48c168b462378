"""A server in simulated time: calls that come, wait, hold what they need, and end.

`Pool` is something bounded that handlers wait for, `Loop` an event loop as grpc.aio uses it: it
accepts one call in every other turn, and a handler that works holds it.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from accord.policies.limiter import Limiter
from accord.policies.queue import PATIENCE, Line, Permit, Waiter
from accord.policies.types import Priority, Refused

# A fifth of the calls is critical.
MIX: Final = (
    Priority.CRITICAL,
    Priority.DEFAULT,
    Priority.SHEDDABLE,
    Priority.DEFAULT,
    Priority.SHEDDABLE,
)

Work = Callable[[Callable[[], None]], None]
"""What a handler does; it calls what it is given when it has ended."""


@dataclass
class Tally:
    """What has become of calls."""

    offered: Counter[Priority] = field(default_factory=Counter)
    answered: Counter[Priority] = field(default_factory=Counter)
    refused: Counter[Priority] = field(default_factory=Counter)


class Simulation:
    """Events in order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.random = random.Random(1)
        self.limiter = Limiter(clock=lambda: self.now, random=self.random.random)
        self.tally = Tally()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def until(self, ends: float) -> Tally:
        """What becomes of calls until then."""
        self.tally = Tally()
        while self._events and self._events[0][0] <= ends:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = ends
        return self.tally

    def call(self, line: Line, work: Work, priority: Priority, ended: Callable[[], None]) -> None:
        """A call whose handler holds nothing but what it waits for."""
        self.tally.offered[priority] += 1
        waiting: list[Waiter] = []

        def act(found: Permit | Waiter | Refused | None) -> None:
            if isinstance(found, Permit):
                waiting.clear()
                work(lambda: done(found))
            elif isinstance(found, Refused):
                waiting.clear()
                self.tally.refused[priority] += 1
                self.after(found.retry_after, ended)
            else:
                self.after(PATIENCE[priority], look)

        def look() -> None:
            if waiting:
                act(self.limiter.begin(waiting[0]))

        def done(permit: Permit) -> None:
            self.limiter.release(permit)
            self.tally.answered[priority] += 1
            ended()

        found = self.limiter.acquire(line, priority, lambda: lambda: self.after(0, look))
        if isinstance(found, Waiter):
            waiting.append(found)
        act(found)

    def offer(self, line: Line, work: Work, per_second: float, begins: float, ends: float) -> None:
        """Calls that come by chance, whether others are answered or not."""
        priorities = itertools.cycle(MIX)

        def come() -> None:
            if self.now < ends:
                self.call(line, work, next(priorities), lambda: None)
                self.after(self.random.expovariate(per_second), come)

        self.after(begins - self.now, come)

    def callers(self, line: Line, work: Work, number: int) -> None:
        """Callers that call again when they are answered."""

        def again() -> None:
            self.call(line, work, Priority.DEFAULT, again)

        for _ in range(number):
            again()


class Pool:
    """Places that handlers wait for, first come first served, and hold for some time."""

    def __init__(self, simulation: Simulation, places: int, hold: Callable[[], float]) -> None:
        self._simulation = simulation
        self._free = places
        self._hold = hold
        self._waiting: deque[Callable[[], None]] = deque()

    def __call__(self, ended: Callable[[], None]) -> None:
        """Wait for a place, and hold it."""
        if not self._free:
            self._waiting.append(lambda: self(ended))
            return
        self._free -= 1

        def leave() -> None:
            self._free += 1
            if self._waiting:
                self._waiting.popleft()()
            ended()

        self._simulation.after(self._hold(), leave)


class Loop:
    """An event loop that accepts calls, and whose handlers hold it."""

    TURN: Final = 0.00005
    ACCEPT: Final = 0.0003
    """Seconds that a turn, and what gRPC does for a call, take."""

    def __init__(self, per_second: float, hold: float) -> None:
        self.now = 0.0
        self.limiter = Limiter(clock=lambda: self.now, random=lambda: 0.0)
        self.line = self.limiter.line()
        self.tally = Tally()
        self.longest = 0.0
        """Seconds of the longest turn."""
        self.unaccepted = 0
        self.per_second = per_second
        self._hold = hold
        self._next = 0.0
        self._priorities = itertools.cycle(MIX)
        self._ready: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._turns = 0

    def until(self, ends: float) -> Tally:
        """What becomes of calls until then."""
        self.tally, self.longest = Tally(), 0.0
        while self.now < ends:
            began = self.now
            self._turn()
            self.longest = max(self.longest, self.now - began)
        return self.tally

    def pause(self, seconds: float) -> None:
        """Nothing happens, as in a collection of garbage or a suspended process."""
        self.now += seconds

    def _turn(self) -> None:
        self.now += self.TURN
        self._turns += 1
        while self._next <= self.now:
            self.unaccepted += 1
            self._next += 1 / self.per_second
        ready, self._ready = self._ready, []
        while self._timers and self._timers[0][0] <= self.now:
            ready.append(heapq.heappop(self._timers)[2])
        if self.unaccepted and self._turns % 2:
            self.unaccepted -= 1
            self.now += self.ACCEPT
            came, priority = self.now, next(self._priorities)
            self.tally.offered[priority] += 1
            # It is read in the next turn, and begins in the one after that.
            self._ready.append(lambda: self._ready.append(lambda: self._enter(came, priority)))
        for action in ready:
            action()

    def _enter(self, came: float, priority: Priority) -> None:
        bell: list[Waiter] = []

        def act(found: Permit | Waiter | Refused | None) -> None:
            if isinstance(found, Permit):
                bell.clear()
                self.now += self._hold
                self.limiter.release(found)
                self.tally.answered[priority] += 1
            elif isinstance(found, Refused):
                bell.clear()
                self.now += self.ACCEPT
                self.tally.refused[priority] += 1
            else:
                due = self.now + PATIENCE[priority]
                heapq.heappush(self._timers, (due, next(self._order), look))

        def look() -> None:
            if bell:
                act(self.limiter.begin(bell[0]))

        def ring() -> None:
            self._ready.append(lambda: self._ready.append(look))

        found = self.limiter.acquire(
            self.line, priority, lambda: ring, waited=self.now - came, looped=True
        )
        if isinstance(found, Waiter):
            bell.append(found)
            if self.limiter.rounds_due():
                self._drive()
        act(found)

    def _drive(self) -> None:
        pause = self.limiter.turn()
        if pause:
            heapq.heappush(self._timers, (self.now + pause, next(self._order), self._drive))
        elif pause is not None:
            self._ready.append(self._drive)
