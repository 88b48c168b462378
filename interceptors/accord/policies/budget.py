"""Retry budget: retries in proportion to calls, so that an outage is not multiplied.

Within a window, retries and hedges together are at most

    floor * window + percent / 100 * calls

The floor lets a caller with little traffic retry at all; with a floor of 0 the load on a target
that fails completely is at most 1.2 times the calls made, over any span of time. One budget per
target, shared by all its methods. Sources: Finagle `RetryBudget` and tower `TpsBudget` (20 % and
10/s over 10 s, the defaults here), Linkerd. gRFC A6's throttle (10 tokens, -1 per failure, +0.1 per
success) serves the same end but reacts to failures only, so that hedges would be free of charge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from accord.policies.sliding_window import Window


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Share of calls that may be repeated, and what is allowed in any case."""

    percent: int = 20
    """Retries per hundred calls."""
    floor: float = 10.0
    """Retries per second that need no calls."""
    window: float = 10.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """A budget at one moment; all but the last over its window."""

    calls: int
    retries: int
    balance: int
    """Retries that would be granted now."""
    refused: int
    """Retries refused since the start."""


class Budget:
    """The budget of one target. Safe under threads; every operation is O(1)."""

    __slots__ = ("_clock", "_lock", "_percent", "_refused", "_reserve", "_window")

    def __init__(self, policy: BudgetPolicy | None = None, *, clock: Callable[[], float]) -> None:
        policy = policy or BudgetPolicy()
        self._percent = policy.percent
        # In hundredths of a retry, so that nothing but whole numbers is compared.
        self._reserve = math.floor(policy.floor * policy.window * 100 + 1e-6)
        self._window = Window(policy.window)
        self._clock = clock
        self._lock = Lock()
        self._refused = 0

    def deposit(self) -> None:
        """A call has begun, and no cache has answered it. Not for its retries and hedges."""
        with self._lock:
            self._window.add(self._clock(), 1, 0)

    def withdraw(self) -> bool:
        """Whether a retry or hedge may be sent; if so it is paid for."""
        window = self._window
        with self._lock:
            now = self._clock()
            window.advance(now)
            granted = (window.marks + 1) * 100 <= self._reserve + self._percent * window.calls
            if granted:
                window.add(now, 0, 1)
            else:
                self._refused += 1
        return granted

    def snapshot(self) -> BudgetSnapshot:
        """What it holds now."""
        window = self._window
        with self._lock:
            window.advance(self._clock())
            allowed = (self._reserve + self._percent * window.calls) // 100
            return BudgetSnapshot(
                window.calls, window.marks, max(0, allowed - window.marks), self._refused
            )
