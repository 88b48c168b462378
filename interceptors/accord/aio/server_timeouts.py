"""Time limits of a handler, by one timer and without a task of its own.

When a limit is reached, the handler's task is cancelled, and the cancellation is turned into the
limit's error where the handler was started - as `asyncio.timeout` does it.
"""

import asyncio

from accord.contract.policy_types import MethodPolicy
from accord.errors import ServiceError
from accord.server.timeouts import TimedCall, TimeLimits


class Watchdog(TimedCall):
    """Bounds of the call that the current task handles."""

    __slots__ = ("_handle", "_loop", "_task")

    def __init__(self, policy: MethodPolicy, limits: TimeLimits) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(policy, limits, self._loop.time)
        self._task = asyncio.current_task()
        self._watch()

    def stop(self) -> None:
        """The handler has ended."""
        self._handle.cancel()

    def expired(self) -> ServiceError | None:
        """The limit's error, if it was this watchdog (and nobody else) that cancelled the task."""
        if self.error is None or self._task is None:
            return None
        return self.error if self._task.uncancel() == 0 else None

    def _watch(self) -> None:
        self._handle = self._loop.call_at(self._due(self._loop.time()), self._check)

    def _check(self) -> None:
        if self._look(self._loop.time()) is None:
            self._watch()
        elif self._task is not None:
            self._task.cancel()
