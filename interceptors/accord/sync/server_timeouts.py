"""Time limits of a handler in a thread, which nobody can interrupt.

When a limit is reached, the caller is answered. The handler's thread learns of it when it next
reads or sends something, as it learns of a caller that has gone.
"""

import time
from collections.abc import Callable

from accord.contract.policy_types import MethodPolicy
from accord.errors import ServiceError
from accord.server.timeouts import TimedCall, TimeLimits
from accord.sync.timers import TIMERS


class Watchdog(TimedCall):
    """Bounds of one call. `bark` is called with the limit's error, in the thread of the timers."""

    __slots__ = ("_bark", "_stopped", "_timer")

    def __init__(
        self, policy: MethodPolicy, limits: TimeLimits, bark: Callable[[ServiceError], None]
    ) -> None:
        super().__init__(policy, limits, time.monotonic)
        self._bark = bark
        self._stopped = False
        self._watch(self._touched)

    def stop(self) -> None:
        """The handler has ended."""
        self._stopped = True
        self._timer.cancel()

    def _watch(self, now: float) -> None:
        self._timer = TIMERS.after(self._due(now) - now, self._check)

    def _check(self) -> None:
        now = time.monotonic()
        if self._stopped:
            return
        error = self._look(now)
        if error is None:
            self._watch(now)
        else:
            self._bark(error)
