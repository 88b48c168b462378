"""Circuit breaker: a target that fails is left alone for a while.

Closed -> open when, within the window, at least `min_calls` calls were counted and at least
`failure_percent` of them failed, or after `consecutive_failures` in a row, of which none was asked
before another one that was answered: so a frozen backend among others does not open it. Open:
everything is refused, the first time for `open` seconds, after every failed probe longer: uniform
over [open * 2^(n-1), open * 2^n], at most `max_open` (equal jitter). Then half-open: exactly
`probes` calls are admitted, however many callers come; if all succeed it closes, if one fails it
opens again, and one that says nothing gives its place back. One that takes longer than `open` keeps
nobody waiting: if it is a stream, which may be quiet for hours, it has succeeded, else another call
is admitted beside it (resilience4j#935). Defaults: 50 % of 10 calls in 10 s, 5 in a row, 10 s
growing to 30 s, 1 probe. One per (target, method), fed by what a call comes to after its retries: a
backend that fails is left to gRPC, and the circuit opens when nobody is left. Sources: resilience4j
`CircuitBreaker`, Polly, Finagle `FailureAccrualPolicy` and `Backoff.equalJittered`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Final
from weakref import WeakSet

from accord.policies.outcome import Outcome
from accord.policies.sliding_window import Window
from accord.policies.types import Refused

CIRCUIT_OPEN: Final = "CIRCUIT_OPEN"
"""ErrorInfo reason of a refusal, which is UNAVAILABLE."""

PROBE_WAIT: Final = 1.0
"""Seconds that a caller is told to wait while the probes of others are under way."""

_MAX_EXPONENT: Final = 32


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """A circuit breaker over a sliding window; times in seconds."""

    failure_percent: int = 50
    min_calls: int = 10
    window: float = 10.0
    consecutive_failures: int = 5
    open: float = 10.0
    max_open: float = 30.0
    probes: int = 1


class State(Enum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker at one moment."""

    state: State
    calls: int
    """Counted in the window, and how many of them failed."""
    failures: int
    retry_after: float
    """Seconds that it stays open; 0 unless it is."""
    opened: int
    """Times it has opened since the start."""
    refused: int
    """Calls refused since the start."""


class Permission:
    """Leave to make one attempt; given back with `record`."""

    __slots__ = ("__weakref__", "probe", "since", "stream")

    def __init__(self, since: float = 0.0, *, probe: bool, stream: bool = False) -> None:
        self.probe = probe
        self.since = since
        self.stream = stream


class Breaker:
    """The breaker of one (target, method). Safe under threads; O(1).

    Every permission is recorded once, in a `finally`. The result of an attempt that was admitted
    before the last change of state is of no consequence. A probe's permission that nobody holds any
    more is taken for NEUTRAL, so that a lost task cannot keep the circuit half-open for ever.
    """

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._random = random
        self._lock = Lock()
        self._window = Window(self._policy.window)
        # All calls admitted while closed share one permission; None when it is not closed.
        self._closed: Permission | None = Permission(probe=False)
        self._probes: WeakSet[Permission] = WeakSet()
        self._succeeded = 0
        self._in_a_row = 0
        self._answered = -math.inf
        """When the latest of the calls that succeeded began."""
        self._reopened = 0
        self._open_until = 0.0
        self._opened = 0
        self._refused = 0

    def admit(self, *, stream: bool = False) -> Permission | Refused:
        """Leave to make an attempt, maybe of a server's `stream`, or the remaining open time."""
        closed = self._closed  # one read, atomic: no lock while all is well
        if closed is not None:
            return closed
        with self._lock:
            now = self._clock()
            waited_for = self._waited_for(now)
            if self._closed is not None:
                return self._closed
            left = self._open_until - now
            if left <= 0 and waited_for + self._succeeded < self._policy.probes:
                probe = Permission(now, probe=True, stream=stream)
                self._probes.add(probe)
                return probe
            self._refused += 1
            return Refused(left if left > 0 else PROBE_WAIT)

    def record(
        self, permission: Permission, outcome: Outcome, *, started: float = math.inf
    ) -> None:
        """How the attempt with this permission went, which began at `started` (inf: just now)."""
        with self._lock:
            if permission is self._closed:
                if outcome is not Outcome.NEUTRAL:
                    self._count(started, failed=outcome is Outcome.FAILURE)
            elif permission in self._probes:
                self._probes.discard(permission)
                if outcome is Outcome.FAILURE:
                    self._open(self._clock())
                elif outcome is Outcome.SUCCESS:
                    self._succeed()

    def snapshot(self) -> BreakerSnapshot:
        """What it is doing now."""
        with self._lock:
            now = self._clock()
            self._window.advance(now)
            left = 0.0 if self._closed else max(0.0, self._open_until - now)
            halfway = State.OPEN if left > 0 else State.HALF_OPEN
            return BreakerSnapshot(
                State.CLOSED if self._closed else halfway,
                self._window.calls,
                self._window.marks,
                left,
                self._opened,
                self._refused,
            )

    def _waited_for(self, now: float) -> int:
        """Probes under way that others wait for."""
        due = [probe for probe in self._probes if now - probe.since >= self._policy.open]
        for probe in due:
            if probe.stream and probe in self._probes:
                self._probes.discard(probe)
                self._succeed()
        return len(self._probes) - sum(not probe.stream for probe in due)

    def _succeed(self) -> None:
        self._succeeded += 1
        if self._succeeded >= self._policy.probes:
            self._close()

    def _count(self, started: float, *, failed: bool) -> None:
        policy, window, now = self._policy, self._window, self._clock()
        window.add(now, 1, failed)
        if not failed:
            self._in_a_row = 0
            self._answered = max(self._answered, min(started, now))
        elif started >= self._answered:  # else somebody has answered what was asked later
            self._in_a_row += 1
        if self._in_a_row >= policy.consecutive_failures or (
            window.calls >= policy.min_calls
            and window.marks * 100 >= policy.failure_percent * window.calls
        ):
            self._open(now)

    def _open(self, now: float) -> None:
        policy, wait = self._policy, self._policy.open
        if self._reopened:
            wait *= 2.0 ** min(self._reopened - 1, _MAX_EXPONENT) * (1 + self._random())
        self._open_until = now + min(wait, policy.max_open)
        self._reopened += 1
        self._opened += 1
        self._closed = None
        self._probes.clear()
        self._succeeded = 0

    def _close(self) -> None:
        self._window.clear()
        self._probes.clear()
        self._succeeded = self._in_a_row = self._reopened = 0
        self._closed = Permission(probe=False)
