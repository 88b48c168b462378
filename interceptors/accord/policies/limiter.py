"""Concurrency limit with a short priority queue: an overloaded server does what it can.

A call gets a permit while fewer than the limit (see `gradient`) are at work. Otherwise it waits in
a short queue (see `queue`); when that is full, the least important loses its place. A refusal says
when to come back: about the time in which the queue drains, spread over a factor of two so that the
refused do not return together. Sources: Netflix concurrency-limits, failsafe-go's prioritised
adaptive limiter, Envoy's adaptive concurrency.

No I/O: a driver that got a `Waiter` waits, up to `max_wait`, until it is notified. Whatever
happens, a permit is given back with `release` and a waiter that is given up with `leave`. One
limiter per server; long-lived streams get one of their own, with a fixed limit (`gradient=None`)
and a queue of length 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from accord.policies.gradient import Gradient2
from accord.policies.queue import Permit, PriorityQueue, QueuePolicy, Waiter
from accord.policies.types import Priority, Refused

OVERLOADED: Final = "OVERLOADED"
"""ErrorInfo reason of a refusal, which is RESOURCE_EXHAUSTED."""

SAMPLE_TIME: Final = 0.25
SAMPLE_CALLS: Final = 10
"""A sample is the mean duration over at least this many seconds and calls."""

MIN_RETRY_AFTER: Final = 0.1
MAX_RETRY_AFTER: Final = 5.0


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """A limiter at one moment."""

    limit: int
    in_flight: int
    queued: int
    shed: int
    """Calls refused or shed since the start."""


class Limiter:
    """Admission of one server. Safe under threads; `notify` is called outside the lock."""

    __slots__ = (
        "_calls",
        "_clock",
        "_gradient",
        "_in_flight",
        "_limit",
        "_lock",
        "_most",
        "_policy",
        "_queue",
        "_random",
        "_sample_until",
        "_shed",
        "_total",
    )

    def __init__(
        self,
        gradient: Gradient2 | None,
        queue: QueuePolicy | None = None,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        fixed: int = 1000,
    ) -> None:
        """A limiter without work.

        `gradient` finds the limit; None: it is `fixed`. `random` is uniform over [0, 1).
        """
        self._gradient = gradient
        self._limit = fixed if gradient is None else int(gradient.limit)
        self._policy = queue or QueuePolicy()
        self._clock = clock
        self._random = random
        self._lock = Lock()
        # While somebody waits, no permit is free.
        self._queue = PriorityQueue()
        self._in_flight = 0
        self._shed = 0
        self._calls = 0
        self._total = 0.0
        self._most = 0
        self._sample_until = clock() + SAMPLE_TIME

    @property
    def limit(self) -> int:
        """Calls that may be at work now."""
        return self._limit

    @property
    def max_wait(self) -> float:
        """Seconds that a driver lets a call wait in the queue."""
        return self._policy.max_wait

    def grant(self) -> Permit | None:
        """Leave to begin at once; None: ask `acquire`."""
        with self._lock:
            return self._grant() if self._in_flight < self._limit else None

    def acquire(
        self, priority: Priority, notify: Callable[[], None] | None = None
    ) -> Permit | Waiter | Refused:
        """Leave to begin, or a place in the queue, or neither.

        `notify` is called once, from any thread, when the waiter has got a permit or was shed; it
        must not block or raise. Without it the call does not wait.
        """
        with self._lock:
            if self._in_flight < self._limit:
                return self._grant()
            if notify is None or self._policy.length <= 0:
                return self._refuse()
            loser = None
            if len(self._queue) >= self._policy.length:
                loser = self._queue.shed(priority)
                if loser is None:
                    return self._refuse()
                loser.refused = self._refuse()
            waiter = Waiter(priority, notify)
            self._queue.push(waiter)
        if loser is not None:
            loser.notify()
        return waiter

    def release(self, permit: Permit, *, sample: bool = True) -> None:
        """The call is over.

        `sample` tells whether its duration says something about the load: not for calls that were
        turned away before their handler, and not for streams. Releasing twice does nothing.
        """
        with self._lock:
            if not permit.held:
                return
            permit.held = False
            if sample and self._gradient is not None:
                self._sample(self._gradient, permit.started)
            self._in_flight -= 1
            if not self._queue.length:
                return
            ready = self._admit_waiters()
        for waiter in ready:
            waiter.notify()

    def leave(self, waiter: Waiter) -> Refused:
        """A waiter is given up: its time is over or its caller has gone.

        If it got a permit meanwhile, that is given back. Raises nothing, also when called twice.
        """
        with self._lock:
            permit = waiter.permit
            if permit is None:
                if waiter.refused is None:
                    self._queue.remove(waiter)
                    waiter.refused = self._refuse()
                return waiter.refused
            refused = self._refuse()
        self.release(permit, sample=False)
        return refused

    def snapshot(self) -> LimiterSnapshot:
        """What is going on now."""
        with self._lock:
            return LimiterSnapshot(self.limit, self._in_flight, len(self._queue), self._shed)

    def _grant(self) -> Permit:
        self._in_flight += 1
        if self._in_flight > self._most:
            self._most = self._in_flight
        return Permit(self._clock())

    def _admit_waiters(self) -> list[Waiter]:
        ready: list[Waiter] = []
        while self._queue and self._in_flight < self.limit:
            waiter = self._queue.pop()
            waiter.permit = self._grant()
            ready.append(waiter)
        return ready

    def _refuse(self) -> Refused:
        self._shed += 1
        usual = 0.0 if self._gradient is None else self._gradient.usual
        drained = (len(self._queue) + 1) * usual / max(1, self.limit)
        wait = max(MIN_RETRY_AFTER, min(MAX_RETRY_AFTER / 2, drained))
        return Refused(wait * (1 + self._random()))

    def _sample(self, gradient: Gradient2, started: float) -> None:
        now = self._clock()
        self._calls += 1
        self._total += now - started
        if now >= self._sample_until and self._calls >= SAMPLE_CALLS:
            self._limit = int(gradient.update(self._total / self._calls, self._most))
            self._calls, self._total = 0, 0.0
            self._most = self._in_flight
            self._sample_until = now + SAMPLE_TIME
