"""Something to be done later, by one thread for all that waits.

A `threading.Timer` is a thread of its own. Here one thread serves every retry, hedge and stream of
a process; it ends when nothing has waited for a while.
"""

import heapq
import itertools
import logging
import os
import time
from collections.abc import Callable
from threading import TIMEOUT_MAX, Condition, Thread
from typing import Final

from accord._log import log

LINGER: Final = 1.0
"""Seconds that the thread waits for more before it ends."""


class Timer:
    """Something that will be done."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not do it; without effect when it has begun."""
        self.action = None


class Timers:
    """A queue of timers and its thread. Actions must not block: others wait behind them."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._waiting: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do `action` in `seconds`, in the thread of the timers.

        Raises RuntimeError when that thread cannot be started; the next timer tries again.
        """
        timer = Timer(action)
        with self._condition:
            if not self._running:
                Thread(target=self._run, name="accord-timers", daemon=True).start()
                self._running = True
            entry = (time.monotonic() + seconds, next(self._order), timer)
            heapq.heappush(self._waiting, entry)
            if self._waiting[0] is entry:
                self._condition.notify()
        return timer

    def _run(self) -> None:
        while (timer := self._next()) is not None:
            action = timer.action
            if action is None:
                continue
            try:
                action()
            except Exception as error:  # the others must not wait for ever
                log(logging.ERROR, "a timer failed", error=error)

    def _next(self) -> Timer | None:
        """The next timer, when it is due; None: nothing waits any more."""
        with self._condition:
            while True:
                while self._waiting and self._waiting[0][2].action is None:
                    heapq.heappop(self._waiting)
                if not self._waiting:
                    if not self._condition.wait(LINGER) and not self._waiting:
                        self._running = False
                        return None
                    continue
                due = self._waiting[0][0] - time.monotonic()
                if due <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._condition.wait(min(due, TIMEOUT_MAX))


TIMERS: Final = Timers()
"""The timers of this process."""

# A child has no thread and waits for nothing: as new, in place.
os.register_at_fork(after_in_child=TIMERS.__init__)  # type: ignore[misc]
