"""One outgoing call as a small state machine, without I/O.

A driver asks `lookup` and then `admit` before every attempt, does what it is told, and reports how
each attempt ended: `succeeded`, `failed` or `released`. This is the seam where policies are
composed:

    deadline -> cache -> hedge -> retry (budget) -> breaker -> attempt timeout

and resume for the streams that know how. The sync and the aio driver share it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from accord.client import waiting
from accord.client.decisions import EXHAUSTED, RAISE, Again, Failure, Observer, Raise, Refuse, Send
from accord.client.method_state import Route, Routes
from accord.contract.policy import Dark, Key, MethodPolicy
from accord.policies import deadline as deadlines
from accord.policies.breaker import CIRCUIT_OPEN, Permission
from accord.policies.cache import CacheKey, Ticket
from accord.policies.idempotency import fingerprint
from accord.policies.outcome import Outcome, outcome_of
from accord.policies.resume import Drop, ResumeLimits, Resumption
from accord.policies.retry import NEVER, Retry, told_to_wait
from accord.policies.types import Code, Refused

LIFETIME_GRACE: Final = 2.0
"""Seconds that a client gives a stream beyond its lifetime, so that the server ends it in order."""

TIMER_SLACK: Final = 0.1
"""Seconds by which an attempt may seem to end before its time."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What the engine of a process decides with. `count` takes a method and what was decided."""

    clock: Callable[[], float]
    random: Callable[[], float]
    routes: Routes
    count: Callable[[str, str], None]
    resume: ResumeLimits = field(default_factory=ResumeLimits)


class Call:
    """The decisions of one call. `resumption` is set for a stream that can be resumed.

    `observer` may be set before the first attempt.
    """

    __slots__ = ("_clock", "_earns", "_env", "_hedged", "_inherited", "_key", "_keyed",
                 "_max_attempts", "_retry", "_ticket", "deadline", "observer", "policy",
                 "resumption", "route")  # fmt: skip

    def __init__(
        self,
        route: Route,
        env: Environment,
        *,
        explicit: float | None = None,
        declared: float | None = None,
        inherits: float | None = None,
        inherited_attempt: int = 0,
        keyed: bool = False,
        max_attempts: int | None = None,
        token: int | None = None,
    ) -> None:
        """A call that begins now.

        Args:
            route: what the process knows of its target and method.
            env: what the process decides with.
            explicit: the caller's own timeout in seconds.
            declared: what the RPC being handled allows for this one, in seconds.
            inherits: the absolute deadline of the RPC being handled.
            inherited_attempt: `accord-attempt` of the RPC being handled.
            keyed: whether the call carries an idempotency key.
            max_attempts: the caller's own limit; it can only lower the contract's.
            token: the resume token that the request begins with; None: not resumable.
        """
        self.route = route
        self.policy: MethodPolicy = route.policy
        self.observer: Observer | None = None
        self._env = env
        self._clock = env.clock
        self._inherited = inherited_attempt
        self._keyed = keyed
        self._max_attempts = max_attempts
        self._retry: Retry | None = None
        self._hedged = False
        self._ticket: Ticket | None = None
        self._key: CacheKey | None = None
        self.deadline = deadlines.effective(
            env.clock(),
            explicit=explicit,
            contract=self.policy.timeout,
            declared=declared,
            inherits=inherits,
        )
        self.resumption = (
            None
            if token is None
            else Resumption(token, limits=env.resume, clock=env.clock, random=env.random)
        )
        # Once: an answer from the cache earns no retries, nor does somebody else's retry.
        self._earns = inherited_attempt == 0
        route.calls += 1

    def lookup(self, request: Any, *, principal: str, at_least: int) -> Any:
        """The kept answer to a request of a cached method, to be copied; None: it must be asked.

        `at_least` is the caller's consistency token, a position that the answer must show.
        """
        route, method = self.route, self.policy.method
        self._key = CacheKey(principal, method, fingerprint(method, request))
        answer = route.target.cache.lookup(self._key, at_least=at_least)
        if answer is None:
            route.misses += 1
            self._ticket = route.target.cache.ask(method)
        else:
            route.hits += 1
            if self.observer is not None:
                self.observer.kept()
        return answer

    def keep(self, answer: Any, *, size: int, position: int) -> None:
        """Keep an answer of `size` bytes, which shows the state at `position` (0: unknown)."""
        if self._key is not None and self._ticket is not None:
            self.route.target.cache.store(
                self._key, answer, size=size, ticket=self._ticket, position=position
            )

    def admit(self) -> Send | Refuse:
        """What to do now: make an attempt, or end the call without one."""
        if self._earns:
            self._earns = False
            self.route.target.budget.deposit()
        now = self._clock()
        left = math.inf if self.deadline is None else self.deadline - now
        # gRPC takes a timeout of 0 for a chance: work that is late already is never sent.
        step: Send | Refuse
        if left <= 0:
            step = Refuse(Code.DEADLINE_EXCEEDED, "deadline exceeded before the call was sent")
        else:
            attempt = self._inherited if self._retry is None else self._retry.attempt
            step = self._admit(now, left, attempt)
        if self.observer is not None:
            if isinstance(step, Send):
                self.observer.sent(step)
            else:
                self.observer.refused(step)
        return step

    def _admit(self, now: float, left: float, number: int) -> Send | Refuse:
        policy, breaker = self.policy, self.route.breaker
        if policy.server_streaming:
            left = min(left, policy.stream.max_lifetime + LIFETIME_GRACE)
        elif policy.attempt_timeout is not None and policy.attempt_timeout < left:
            left = policy.attempt_timeout
        # A stream that goes on has a back-off and a patience of its own instead.
        if breaker is None or (self.resumption is not None and self.resumption.attempt > 1):
            return Send(left, number, now, None)
        admitted = breaker.admit()
        if isinstance(admitted, Permission):
            return Send(left, number, now, admitted)
        return self._refused(admitted, Send(left, number, now, None))

    def _refused(self, refused: Refused, send: Send) -> Send | Refuse:
        policy = self.policy
        if Dark.BREAKER in policy.dark:
            self._env.count(policy.method, "breaker.dark")
            return send
        self._env.count(policy.method, "breaker.refused")
        return Refuse(
            Code.UNAVAILABLE,
            f"the circuit of {policy.method[1:]} is open",
            CIRCUIT_OPEN,
            refused.retry_after,
        )

    def hedge_delay(self) -> float | None:
        """Seconds after which `admit_hedge` should be asked; None: this call has no backup."""
        hedge = self.route.hedge
        if hedge is None or self._inherited or self._hedged or not self._repeatable():
            return None
        delay = hedge.delay()
        return None if delay is None else waiting.delay(delay)

    def admit_hedge(self) -> Send | None:
        """Make a second attempt beside the first, if budget, breaker and deadline allow."""
        self._hedged = True
        now, policy, hedge = self._clock(), self.policy, self.route.hedge
        left = math.inf if self.deadline is None else self.deadline - now
        if hedge is None or left <= 0:
            return None
        if Dark.HEDGE in policy.dark:
            self._env.count(policy.method, "hedge.dark")
            return None
        send = self._admit(now, left, 1)
        if isinstance(send, Refuse):
            return None
        if not hedge.send(self.route.target.budget) and Dark.RETRY_BUDGET not in policy.dark:
            self.released(send)
            return None
        self._env.count(policy.method, "hedge.sent")
        if self.observer is not None:
            self.observer.sent(send, hedge=True)
        return send

    def _repeatable(self) -> bool:
        """Whether sending the request twice is safe.

        A key protects only where the contract says that keys are obeyed.
        """
        return self.route.protected or (self._keyed and self.policy.key is not Key.NONE)

    def remaining(self) -> float | None:
        """Seconds left of the call, not below 0; None: no bound."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock())

    def accepted(self, send: Send) -> None:
        """The server has begun to answer: a probe gives its place back before a long stream ends.

        The attempt is still to be reported when it has ended.
        """
        route, permission = self.route, send.permission
        if permission is not None and route.breaker is not None and permission.probe:
            send.permission = None
            route.breaker.record(permission, Outcome.SUCCESS)

    def succeeded(self, send: Send) -> None:
        """The attempt was answered; a stream, as soon as the server has begun to."""
        route, permission = self.route, send.permission
        if permission is not None and route.breaker is not None:
            send.permission = None
            route.breaker.record(permission, Outcome.SUCCESS)
        if route.hedge is not None:
            route.hedge.record(self._clock() - send.started)
        self._env.routes.written(self.policy.method)
        if self.observer is not None and not self.policy.server_streaming:
            self.observer.succeeded(send)

    def released(self, send: Send, *, lost: bool = False) -> None:
        """The attempt was cancelled; `lost`: because the other one of a hedge has won."""
        route, permission = self.route, send.permission
        if permission is not None and route.breaker is not None:
            send.permission = None
            route.breaker.record(permission, Outcome.NEUTRAL)
        if lost and route.hedge is not None:
            route.hedge.record(self._clock() - send.started)
        self._env.routes.written(self.policy.method)
        if self.observer is not None:
            self.observer.released(send, lost=lost)

    def recorded(self, send: Send, failure: Failure) -> None:
        """The attempt failed, and nothing is to be decided about it."""
        self._record(send, failure)
        if self.observer is not None:
            self.observer.failed(send, failure, None)

    def _record(self, send: Send, failure: Failure) -> None:
        route, permission = self.route, send.permission
        outcome = outcome_of(
            failure.code,
            pushback=told_to_wait(failure.pushback, failure.retry_info),
            given=send.timeout,
            contract=route.attempt_time,
        )
        if permission is not None and route.breaker is not None:
            send.permission = None
            route.breaker.record(permission, outcome)
        if outcome is not Outcome.SUCCESS:
            self._env.routes.written(self.policy.method)  # it may have acted

    def failed(self, send: Send, failure: Failure) -> Again | Raise:
        """What to do after an attempt that ended with `failure`."""
        self._record(send, failure)
        if self.resumption is None:
            step = self._again(failure)
        else:
            step = self._resume(self.resumption, send, failure)
        if self.observer is not None:
            self.observer.failed(send, failure, step)
        return step

    def _again(self, failure: Failure) -> Again | Raise:
        policy, env = self.policy, self._env
        if self._retry is None:
            if policy.retry is None:
                # A mark is passed on whether or not this tier retries.
                told = told_to_wait(failure.pushback, failure.retry_info)
                return EXHAUSTED if told == NEVER else RAISE
            unlimited = Dark.RETRY_BUDGET in policy.dark
            self._retry = Retry(
                policy.retry,
                repeatable=self._repeatable(),
                budget=None if unlimited else self.route.target.budget,
                random=env.random,
                inherited=self._inherited,
                max_attempts=self._max_attempts,
            )
        step = self._retry.failed(
            failure.code,
            remaining=self.remaining(),
            pushback=failure.pushback,
            retry_info=failure.retry_info,
            started=failure.started,
        )
        if not isinstance(step, float):
            env.count(policy.method, f"retry.stopped.{step.value}")
            return Raise(exhausted=step.marks, why=step.value)
        if Dark.RETRY in policy.dark:
            env.count(policy.method, "retry.dark")
            return RAISE
        self.route.retries += 1
        env.count(policy.method, "retry.sent")
        return Again(waiting.backoff(step))

    def _resume(self, resumption: Resumption, send: Send, failure: Failure) -> Again | Raise:
        # gRPC's timer and this clock are not the same one.
        over = self._clock() >= send.started + send.timeout - TIMER_SLACK
        drop = Drop(
            failure.code,
            reason=failure.reason,
            told=told_to_wait(failure.pushback, failure.retry_info),
            transport=failure.transport,
            lifetime=failure.code is Code.DEADLINE_EXCEEDED and over and self.remaining() != 0,
        )
        if not failure.started and (self._inherited or not drop.resumable):
            return self._again(failure)  # before its first message it is a call as any other
        delay = resumption.dropped(drop)
        if delay is None:
            return EXHAUSTED if drop.resumable or drop.told == NEVER else RAISE
        # When the deadline comes first, `admit` ends the call, with the deadline's own status.
        left = self.remaining()
        wait = waiting.backoff(delay if left is None else min(delay, left))
        return Again(wait, resumes=True)
