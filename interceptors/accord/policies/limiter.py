"""Who may begin, and who is refused, when a server has more work than it can do.

Nobody is, before something says so that the process lacks:

- time of its event loop or its threads: calls wait between their arrival and their beginning. They
  must have done so for longer than `TARGET` without a break of an `INTERVAL` (CoDel: a queue that
  stands, not a burst), or
- room at what the handlers of one method wait for (see `latency_limit`), or
- a bound that the method's contract declares.

Then calls give up when they have waited for as long as their priority allows (see `queue`), and
meanwhile the most important begin first. A refusal says when to come back, spread over a factor of
two so that the refused do not return together. Sources: DAGOR (queueing time, priorities), CoDel,
Envoy's overload manager, Google SRE "Handling overload".

No I/O: a driver that got a `Waiter` waits until it is notified, and asks `begin`. Whatever happens,
a permit is given back with `release`, and a waiter that is given up with `leave`. Where an event
loop begins the calls, it calls `turn` in each of its turns once `rounds_due` (see `rounds`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from accord.policies.latency_limit import LatencyLimit
from accord.policies.queue import PATIENCE, Line, Permit, Waiter
from accord.policies.rounds import LATE, Rounds
from accord.policies.types import Priority, Refused

OVERLOADED: Final = "OVERLOADED"
"""ErrorInfo reason of a refusal, which is RESOURCE_EXHAUSTED."""

TARGET: Final = 0.1
"""Seconds that a call may wait at any time."""

INTERVAL: Final = 2.0
"""Seconds that calls must have waited for longer, and after which all is well again."""

RETRY_AFTER: Final = 0.25
"""Seconds after which a refused call is welcome again, up to twice."""


class Standing:
    """Whether calls have waited for too long for too long: there is too much work."""

    __slots__ = ("_last", "_since", "_until", "delay", "quiet")

    def __init__(self) -> None:
        self.delay = 0.0
        """The latest wait."""
        self.quiet = True
        """Whether it was below the target, so that more of the kind change nothing."""
        self._since = self._until = self._last = -math.inf

    def observe(self, delay: float, now: float) -> None:
        """The one who has waited for the longest has waited for `delay` seconds."""
        self.delay = delay
        if delay >= TARGET:
            if self.quiet or now - self._last > INTERVAL / 2:
                self._since = now
            if now - self._since >= INTERVAL or now < self._until:
                self._until = now + INTERVAL
        self.quiet = delay < TARGET
        self._last = now

    def speaks(self, now: float) -> bool:
        """Whether there is too much work."""
        return now < self._until


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """A limiter at one moment."""

    overloaded: bool
    """Whether calls have waited for too long for too long, and so may be refused."""
    delay: float
    """Seconds that a call has waited between its arrival and its beginning, the latest seen."""
    in_flight: int
    queued: int
    refused: int
    """Since the start."""


class Limiter:
    """Admission of one process. Safe under threads; `notify` is called outside the lock."""

    def __init__(self, *, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Without work. `random` is uniform over [0, 1)."""
        self._clock = clock
        self._random = random
        self._lock = Lock()
        self._lines: list[Line] = []
        self._standing = Standing()
        self._rounds = Rounds()
        self._driven = False
        self._batch: list[Permit] = []
        self._refused = 0

    def line(self, bound: float = math.inf, *, watched: bool = True) -> Line:
        """One for the calls of a method; `watched`: they are known by how long they take."""
        line = Line(bound, LatencyLimit() if watched else None)
        self._lines.append(line)
        return line

    def acquire(
        self,
        line: Line,
        priority: Priority,
        bell: Callable[[], Callable[[], None]] | None = None,
        *,
        waited: float = 0.0,
        looped: bool = False,
    ) -> Permit | Waiter | Refused:
        """Leave to begin, or a place in the line, or neither, for a call that came `waited` ago.

        `bell` makes what is called once, from any thread, when a waiter may begin; that must not
        block or raise. Without it the call does not wait. `looped`: an event loop begins it.
        """
        with self._lock:
            now = self._clock()
            if waited < LATE and self._standing.quiet and not self._rounds.active and line.room:
                return self._grant(line, now)
            held = looped and self._rounds.come(waited, now)
            if waited >= TARGET or not (held or self._standing.quiet):
                self._standing.observe(waited, now)
            # It has waited for the loop or a thread: the limit of its method is not to blame.
            if waited >= PATIENCE[priority] and self._standing.speaks(now):
                return self._refuse()
            if not line.room and line.watch is not None:
                line.watch.expire(now)
            if line.room and (not held or bell is None):
                return self._grant(line, now)
            if bell is None:
                return self._refuse()
            waiter = Waiter(line, priority, now - waited, bell())
            line.push(waiter)
            return waiter

    def begin(self, waiter: Waiter) -> Permit | Refused | None:
        """What has become of a waiter; None: it goes on waiting.

        To be asked when it is notified, and when it has waited for its patience (`PATIENCE`).
        """
        with self._lock:
            now = self._clock()
            if waiter.permit is not None:
                waiter.permit.begun = True
                self._rounds.begun(now)
                return waiter.permit
            if self._over(waiter.line, waiter.priority, now - waiter.since, now):
                waiter.line.remove(waiter)
                return self._refuse()
            return None

    def leave(self, waiter: Waiter) -> None:
        """A waiter is given up: its caller has gone. To be called at most once."""
        with self._lock:
            permit = waiter.permit
            if permit is None:
                waiter.line.remove(waiter)
        if permit is not None:
            self.release(permit)

    def release(self, permit: Permit) -> None:
        """The call is over. Releasing twice does nothing."""
        line, ready = permit.line, list[Waiter]()
        with self._lock:
            if not permit.held:
                return
            permit.held = False
            line.in_flight -= 1
            now = self._clock()
            if line.watch is not None:
                line.watch.ended(line.in_flight, now, began=permit.since, waiting=line.queued > 0)
            while line.queued and line.room and not self._rounds.active:
                ready.append(self._admit(line.first(), now))
        for waiter in ready:
            waiter.notify()

    def rounds_due(self) -> bool:
        """Whether an event loop must call `turn` from now on; True once, until that ends."""
        with self._lock:
            due = self._rounds.active and not self._driven
            self._driven = self._rounds.active
            return due

    def turn(self) -> float | None:
        """A turn of the loop that begins calls.

        Returns in how many seconds it must call again, 0 being the next turn; None: no more.
        """
        with self._lock:
            now, ready = self._clock(), list[Waiter]()
            open_lines = [line for line in self._lines if line.queued and line.room]
            first = min((line.since() for line in open_lines), default=now)
            self._standing.observe(now - first, now)
            pending = any(each.held and not each.begun for each in self._batch)
            count = self._rounds.turn(now, waiting=bool(open_lines), pending=pending)
            while open_lines and len(ready) < count:
                waiter = min((line.first() for line in open_lines), key=_rank)
                ready.append(self._admit(waiter, now))
                line = waiter.line
                if not (line.queued and line.room):
                    open_lines.remove(line)
            if ready:
                self._batch = [waiter.permit for waiter in ready if waiter.permit]
            self._driven = self._rounds.active
            pause = self._rounds.pause if self._driven else None
        for waiter in ready:
            waiter.notify()
        return pause

    def snapshot(self) -> LimiterSnapshot:
        """What is going on now."""
        with self._lock:
            now = self._clock()
            return LimiterSnapshot(
                self._standing.speaks(now),
                self._standing.delay,
                sum(line.in_flight for line in self._lines),
                sum(line.queued for line in self._lines),
                self._refused,
            )

    def _grant(self, line: Line, now: float) -> Permit:
        if line.watch is not None:
            line.watch.begins(line.in_flight, now)
        line.in_flight += 1
        return Permit(line, now)

    def _admit(self, waiter: Waiter, now: float) -> Waiter:
        waiter.line.remove(waiter)
        waiter.permit = self._grant(waiter.line, now)
        waiter.permit.begun = False
        return waiter

    def _over(self, line: Line, priority: Priority, waited: float, now: float) -> bool:
        """Whether a call has waited for as long as it may."""
        too_much = line.limited or self._standing.speaks(now)
        return too_much and waited >= PATIENCE[priority]

    def _refuse(self) -> Refused:
        self._refused += 1
        return Refused(RETRY_AFTER * (1 + self._random()))


def _rank(waiter: Waiter) -> tuple[Priority, float]:
    return waiter.priority, waiter.since
