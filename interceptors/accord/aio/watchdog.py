"""Time limits of a handler, by one timer and without a task of its own.

When a limit is reached, the handler's task is cancelled, and the cancellation is turned into the
limit's error where the handler was started - as `asyncio.timeout` does it.
"""

import asyncio
import math
from typing import Final

from accord.contract import MethodPolicy
from accord.errors import DeadlineExceeded, ServiceError, Unavailable

MAX_LIFETIME: Final = "STREAM_MAX_LIFETIME"
"""ErrorInfo reason: the stream has reached its lifetime; a resumable client goes on elsewhere."""

IDLE: Final = "STREAM_IDLE"
"""ErrorInfo reason: nothing was sent or received for the stream's idle time."""

TIMEOUT_GRACE: Final = 1.0
"""Seconds beyond a unary contract's timeout: the client's own deadline should end the call."""


class Watchdog:
    """Bounds of the call that the current task handles."""

    __slots__ = ("_ends", "_handle", "_idle", "_loop", "_policy", "_task", "_touched", "error")

    def __init__(self, policy: MethodPolicy, remaining: float | None) -> None:
        """`remaining` is what the client's own deadline leaves, which gRPC itself enforces."""
        self.error: ServiceError | None = None
        self._policy = policy
        self._handle: asyncio.TimerHandle | None = None
        left = math.inf if remaining is None else remaining
        lifetime = math.inf if policy.timeout is None else policy.timeout + TIMEOUT_GRACE
        self._idle = math.inf
        if policy.server_streaming:
            lifetime = min(lifetime, policy.stream.max_lifetime)
            self._idle = policy.stream.idle
        if not policy.declared or (left <= lifetime and left <= self._idle):
            return  # the usual unary call: gRPC's own deadline does it
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._touched = self._loop.time()
        self._ends = self._touched + lifetime
        self._watch()

    def touch(self) -> None:
        """Something was sent or received."""
        if self._handle is not None:
            self._touched = self._loop.time()

    def stop(self) -> None:
        """The handler has ended."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def expired(self) -> ServiceError | None:
        """The limit's error, if it was this watchdog (and nobody else) that cancelled the task."""
        if self.error is None or self._task is None:
            return None
        return self.error if self._task.uncancel() == 0 else None

    def _watch(self) -> None:
        at = min(self._ends, self._touched + self._idle)
        self._handle = self._loop.call_at(at, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        if now >= self._ends:
            self._bark(self._lifetime_error())
        elif now >= self._touched + self._idle:
            self._bark(Unavailable(IDLE, message=f"nothing happened for {self._idle:g} s"))
        else:
            self._watch()

    def _lifetime_error(self) -> ServiceError:
        policy = self._policy
        if policy.server_streaming and self._is_lifetime():
            longest = policy.stream.max_lifetime
            return Unavailable(MAX_LIFETIME, message=f"the stream has lived for {longest:g} s")
        return DeadlineExceeded(f"took longer than its contract allows: {policy.timeout:g} s")

    def _is_lifetime(self) -> bool:
        policy = self._policy
        return policy.timeout is None or policy.stream.max_lifetime <= policy.timeout

    def _bark(self, error: ServiceError) -> None:
        self._handle = None
        self.error = error
        if self._task is not None:
            self._task.cancel()
