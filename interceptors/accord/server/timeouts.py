"""Time limits of a handler: how long a call may take, and how long it may be quiet."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from accord.contract.policy_types import MethodPolicy, StreamPolicy
from accord.errors import Aborted, DeadlineExceeded, ServiceError, Unavailable
from accord.policies.resume import SLOW_CONSUMER

MAX_LIFETIME: Final = "STREAM_MAX_LIFETIME"
"""ErrorInfo reason: the stream has reached its lifetime; a resumable client goes on elsewhere."""

IDLE: Final = "STREAM_IDLE"
"""ErrorInfo reason: nothing was sent or received for the stream's idle time."""

TIMEOUT_GRACE: Final = 1.0
"""Seconds beyond a unary contract's timeout: the client's own deadline should end the call."""


SLOW_READER: Final = 30.0
"""Seconds that one response of a stream may wait for its reader, until the next look at most as
long again. It acts where the contract states something of streams, resuming or limits."""

ANSWER_TIME: Final = 2.0
"""Seconds that the caller has to take the status of a limit, which comes after all responses that
it has not read; then its stream is reset."""


class TimeLimits(NamedTuple):
    """What a watchdog watches, in seconds; infinite: no bound."""

    lifetime: float
    idle: float
    write: float = math.inf


def time_limits(policy: MethodPolicy) -> TimeLimits | None:
    """The limits of a method's calls, or None if they need no watching.

    gRPC itself enforces the caller's deadline: a call whose deadline comes before either limit, as
    nearly all do, needs no watching either.
    """
    lifetime = math.inf if policy.timeout is None else policy.timeout + TIMEOUT_GRACE
    idle = write = math.inf
    if policy.server_streaming:
        lifetime = min(lifetime, policy.stream.max_lifetime)
        idle = policy.stream.idle
        if policy.limit or policy.resume or policy.stream != StreamPolicy():
            write = SLOW_READER
    return None if lifetime == idle == write == math.inf else TimeLimits(lifetime, idle, write)


class TimedCall:
    """What both watchdogs do: the time limits of one call, on a clock of their own."""

    __slots__ = ("_clock", "_ends", "_limits", "_policy", "_touched", "_writing_since", "error")

    def __init__(
        self, policy: MethodPolicy, limits: TimeLimits, clock: Callable[[], float]
    ) -> None:
        self.error: ServiceError | None = None
        """That of the limit which was reached."""
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._touched = clock()
        self._writing_since = math.inf
        self._ends = self._touched + limits.lifetime

    def touch(self) -> None:
        """Something was sent or received."""
        self._touched = self._clock()

    def writing(self) -> None:
        """A response is next, which may have to wait for its reader."""
        self._writing_since = self._clock()

    def written(self) -> None:
        """It is sent."""
        self.touch()
        self._writing_since = math.inf

    def _due(self, now: float) -> float:
        """When to look next. No write that is begun before is late by then."""
        writing = min(now, self._writing_since) + self._limits.write
        return min(self._ends, self._touched + self._limits.idle, writing)

    def _look(self, now: float) -> ServiceError | None:
        """The error of a limit that is reached, which is kept."""
        if now >= self._ends:
            self.error = _lifetime_error(self._policy)
        elif now >= self._writing_since + self._limits.write:
            self.error = Aborted(SLOW_CONSUMER, message="responses were not read in time")
        elif now >= self._touched + self._limits.idle:
            self.error = Unavailable(
                IDLE, message=f"nothing happened for {self._policy.stream.idle:g} s"
            )
        return self.error


def _lifetime_error(policy: MethodPolicy) -> ServiceError:
    """The call has lived for too long."""
    longest = policy.stream.max_lifetime
    if policy.server_streaming and (policy.timeout is None or longest <= policy.timeout):
        return Unavailable(MAX_LIFETIME, message=f"the stream has lived for {longest:g} s")
    return DeadlineExceeded(message=f"took longer than its contract allows: {policy.timeout:g} s")
