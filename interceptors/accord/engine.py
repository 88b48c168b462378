"""One outgoing call as a small state machine, without I/O.

A driver asks `admit` before every attempt and does what it is told, and reports how the attempt
ended with `failed`. This is the seam where policies are composed: deadline -> (cache, hedge, retry,
breaker: to come) -> resume -> attempt timeout.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from accord.contract import MethodPolicy
from accord.policies import deadline as deadlines
from accord.policies.codes import Code
from accord.policies.resume import Drop, ResumeLimits, Resumption

LIFETIME_GRACE: Final = 2.0
"""Seconds that a client gives a stream beyond its lifetime, so that the server ends it in order."""

TIMER_SLACK: Final = 0.1
"""Seconds by which an attempt may seem to end before its time."""


@dataclass(frozen=True, slots=True)
class Send:
    """Make an attempt that may take `timeout` seconds."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Make no attempt: the call ends with this status."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Again:
    """Wait `delay` seconds, then ask `admit` for another attempt."""

    delay: float


@dataclass(frozen=True, slots=True)
class Raise:
    """Give the failure of the attempt to the caller."""


RAISE: Final = Raise()


@dataclass(frozen=True, slots=True)
class Environment:
    """What the engine of a process decides with."""

    clock: Callable[[], float]
    random: Callable[[], float]
    resume: ResumeLimits = field(default_factory=ResumeLimits)


class Call:
    """The decisions of one call. `resumption` is set for a stream that can be resumed."""

    __slots__ = ("_attempt_deadline", "_clock", "deadline", "policy", "resumption")

    def __init__(
        self,
        policy: MethodPolicy,
        env: Environment,
        *,
        explicit: float | None = None,
        declared: float | None = None,
        inherits: float | None = None,
        token: int | None = None,
    ) -> None:
        """A call that begins now.

        Args:
            policy: its contract.
            env: what the process decides with.
            explicit: the caller's own timeout in seconds.
            declared: what the RPC being handled allows for this one, in seconds.
            inherits: the absolute deadline of the RPC being handled.
            token: the resume token that the request begins with; None: not resumable.
        """
        self.policy = policy
        self._clock = env.clock
        self.deadline = deadlines.effective(
            env.clock(),
            explicit=explicit,
            contract=policy.timeout,
            declared=declared,
            inherits=inherits,
        )
        self._attempt_deadline = math.inf
        self.resumption = (
            None
            if token is None
            else Resumption(token, limits=env.resume, clock=env.clock, random=env.random)
        )

    def admit(self) -> Send | Refuse:
        """What to do now: make an attempt, or end the call without one."""
        now = self._clock()
        left = math.inf if self.deadline is None else self.deadline - now
        # gRPC takes a timeout of 0 for a chance: work that is late already is never sent.
        if left <= 0:
            return Refuse(Code.DEADLINE_EXCEEDED, "deadline exceeded before the call was sent")
        if self.policy.server_streaming:
            left = min(left, self.policy.stream.max_lifetime + LIFETIME_GRACE)
        if self.policy.attempt_timeout is not None and not self.policy.server_streaming:
            left = min(left, self.policy.attempt_timeout)
        self._attempt_deadline = now + left
        return Send(left)

    def remaining(self) -> float | None:
        """Seconds left of the call, not below 0; None: no bound."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock())

    def failed(self, code: Code, *, reason: str = "", transport: bool = False) -> Again | Raise:
        """What to do after an attempt that ended with `code`.

        `reason` is that of its ErrorInfo; `transport` says that the connection broke below the
        status.
        """
        if self.resumption is None:
            return RAISE
        # gRPC's timer and this clock are not the same one.
        over = self._clock() >= self._attempt_deadline - TIMER_SLACK
        lifetime = code is Code.DEADLINE_EXCEEDED and over and self.remaining() != 0
        delay = self.resumption.dropped(
            Drop(code, reason=reason, transport=transport, lifetime=lifetime)
        )
        if delay is None:
            return RAISE
        # When the deadline comes first, `admit` ends the call, with the deadline's own status.
        left = self.remaining()
        return Again(delay if left is None else min(delay, left))
