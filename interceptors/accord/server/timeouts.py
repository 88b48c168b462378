"""Time limits of a handler: how long a call may take, and how long it may be quiet."""

import math
from typing import Final, NamedTuple

from accord.contract.policy_types import MethodPolicy
from accord.errors import DeadlineExceeded, ServiceError, Unavailable

MAX_LIFETIME: Final = "STREAM_MAX_LIFETIME"
"""ErrorInfo reason: the stream has reached its lifetime; a resumable client goes on elsewhere."""

IDLE: Final = "STREAM_IDLE"
"""ErrorInfo reason: nothing was sent or received for the stream's idle time."""

TIMEOUT_GRACE: Final = 1.0
"""Seconds beyond a unary contract's timeout: the client's own deadline should end the call."""


class TimeLimits(NamedTuple):
    """What a watchdog watches, in seconds; infinite: no bound."""

    lifetime: float
    idle: float


def time_limits(policy: MethodPolicy) -> TimeLimits | None:
    """The limits of a method's calls, or None if they need no watching.

    gRPC itself enforces the caller's deadline: a call whose deadline comes before either limit, as
    nearly all do, needs no watching either.
    """
    lifetime = math.inf if policy.timeout is None else policy.timeout + TIMEOUT_GRACE
    idle = math.inf
    if policy.server_streaming:
        lifetime = min(lifetime, policy.stream.max_lifetime)
        idle = policy.stream.idle
    return None if lifetime == idle == math.inf else TimeLimits(lifetime, idle)


class TimedCall:
    """What both watchdogs do: the time limits of one call, on a clock of their own."""

    __slots__ = ("_ends", "_idle", "_policy", "_touched", "error")

    def __init__(self, policy: MethodPolicy, limits: TimeLimits, now: float) -> None:
        self.error: ServiceError | None = None
        """That of the limit which was reached."""
        self._policy = policy
        self._idle = limits.idle
        self._touched = now
        self._ends = now + limits.lifetime

    def _due(self) -> float:
        """When to look next."""
        return min(self._ends, self._touched + self._idle)

    def _look(self, now: float) -> ServiceError | None:
        """The error of a limit that is reached, which is kept."""
        if now >= self._ends:
            self.error = _lifetime_error(self._policy)
        elif now >= self._touched + self._idle:
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
