"""Time limits of a handler in a thread, which nobody can interrupt.

When a limit is reached, the caller is answered. The handler's thread learns of it when it next
reads or sends something, as it learns of a caller that has gone.
"""

import math
import time
from collections.abc import Callable

from accord.contract.policy import MethodPolicy
from accord.errors import ServiceError
from accord.server.timeouts import TimeLimits, idle_error, lifetime_error
from accord.sync.timers import TIMERS, Timer


class Watchdog:
    """Bounds of one call. `bark` is called with the limit's error, in the thread of the timers."""

    __slots__ = ("_bark", "_ends", "_idle", "_policy", "_stopped", "_timer", "_touched", "error")

    def __init__(
        self, policy: MethodPolicy, limits: TimeLimits, bark: Callable[[ServiceError], None]
    ) -> None:
        self.error: ServiceError | None = None
        self._policy = policy
        self._idle = limits.idle
        self._bark = bark
        self._stopped = False
        self._touched = time.monotonic()
        self._ends = self._touched + limits.lifetime
        self._timer: Timer | None = None
        self._watch(self._touched)

    def touch(self) -> None:
        """Something was sent or received."""
        self._touched = time.monotonic()

    def stop(self) -> None:
        """The handler has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, now: float) -> None:
        at = min(self._ends, self._touched + self._idle)
        if at < math.inf:
            self._timer = TIMERS.after(at - now, self._check)

    def _check(self) -> None:
        now = time.monotonic()
        if self._stopped:
            return
        if now >= self._ends:
            self.error = lifetime_error(self._policy)
        elif now >= self._touched + self._idle:
            self.error = idle_error(self._policy)
        else:
            self._watch(now)
            return
        self._bark(self.error)
