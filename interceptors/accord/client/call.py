"""One outgoing call as a small state machine, without I/O.

A driver asks `admit` before every attempt, does what it is told, and tells the
attempt how it ended: `answered`, `failed`, `recorded` or `released`. This is the seam where
policies are composed:

    deadline -> cache -> hedge -> retry (budget) -> breaker -> attempt timeout

and resume for the streams that know how. The sync and the aio driver share it.
"""

import math
from types import TracebackType
from typing import Final, Self

from accord.client import skip_waiting
from accord.client.method_state import Environment, MethodState
from accord.client.spans import ClientCall
from accord.client.types import EXHAUSTED, RAISE, Again, Failure, Raise, Refuse
from accord.contract.policy_types import Dark, Key, MethodPolicy
from accord.policies import deadline as deadlines
from accord.policies.breaker import CIRCUIT_OPEN, Permission
from accord.policies.outcome import Outcome, outcome_of
from accord.policies.resume import Drop, Resumption
from accord.policies.retry import NEVER, Retry, told_to_wait
from accord.policies.types import Code

LIFETIME_GRACE: Final = 2.0
"""Seconds that a client gives a stream beyond its lifetime, so that the server ends it in order."""

PROBE_SETTLES: Final = 0.05
"""Seconds after which a stream that has initial metadata, as a refusal has, was not refused."""

TIMER_SLACK: Final = 0.1
"""Seconds by which an attempt may seem to end before its time."""


class Attempt:
    """One attempt of a call. It ends once; what is told of it afterwards changes nothing.

    As a context manager it is released when an exception leaves the block.
    """

    __slots__ = ("_call", "ended", "number", "open", "permission", "started", "timeout")

    def __init__(
        self, call: "Call", timeout: float, number: int, started: float, found: Permission | None
    ) -> None:
        self._call = call
        self.permission = found
        self.timeout = timeout
        """Seconds that it may take."""
        self.number = number  # what travels as `accord-attempt`; 0 is not sent
        self.started = started
        self.ended = self.open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None:
            self.released()

    def accepted(self) -> None:
        """The server has begun to answer: a probe gives its place back before the stream ends."""
        with self._call.env.lock:
            if self.permission is not None and self.permission.probe:
                self._give_back(Outcome.SUCCESS)

    def opened(self) -> None:
        """A stream has messages: with the first the attempt is a success, whatever follows."""
        if not self.open:
            self.open = True
            with self._call.env.lock:
                self._succeed()

    def answered(self) -> bool:
        """It was answered in full; whether it ended by this."""
        call = self._call
        with call.env.lock:
            if self.ended:
                return False
            self.ended = True
            self._succeed()
            if call.observer is not None and not call.policy.server_streaming:
                call.observer.succeeded(self)
        return True

    def released(self, *, lost: bool = False) -> bool:
        """It was cancelled; `lost`: the other one of a hedge has won. Whether it ended by this."""
        call = self._call
        with call.env.lock:
            if self.ended:
                return False
            self.ended = True
            self._give_back(Outcome.NEUTRAL)
            if lost and call.state.hedge is not None:
                call.state.hedge.record(call.env.clock() - self.started)
            call.env.methods.written(call.policy.method)
            if call.observer is not None:
                call.observer.released(self, lost=lost)
        return True

    def recorded(
        self, failure: Failure, step: Again | Raise | None = None, *, last: bool = True
    ) -> bool:
        """It failed, and `step` follows; whether it ended by this.

        `last`: the call ends with it, no other attempt goes on.
        """
        call = self._call
        with call.env.lock:
            if self.ended:
                return False
            self.ended = True
            self._fail(failure, last=last)
            if call.observer is not None:
                call.observer.failed(self, failure, step)
        return True

    def failed(self, failure: Failure) -> Again | Raise:
        """It failed: what to do now."""
        with self._call.env.lock:
            step = self._call.after(self, failure)
            self.recorded(failure, step, last=isinstance(step, Raise) or step.resumes)
        return step

    def _succeed(self) -> None:
        call = self._call
        self._give_back(Outcome.SUCCESS)
        if call.state.hedge is not None:
            call.state.hedge.record(call.env.clock() - self.started)
        call.env.methods.written(call.policy.method)

    def _fail(self, failure: Failure, *, last: bool) -> None:
        call, target = self._call, self._call.state.target
        outcome = outcome_of(
            failure.code,
            pushback=told_to_wait(failure.pushback, failure.retry_info),
            given=self.timeout,
            contract=call.state.attempt_time,
            own=call.own(failure),
        )
        if failure.handshake and call.own(failure):
            call.env.count(call.policy.method, "handshake.failed")
            call.env.handshake_failed(target, failure.handshake, call.env.clock())
        if outcome is not Outcome.SUCCESS:
            call.env.methods.written(call.policy.method)  # it may have acted
        if not last:  # what the call comes to counts, for another backend may answer
            if self.permission is not None and self.permission.probe:
                call.probe, self.permission = self.permission, None
            return
        if failure.lost and outcome is Outcome.FAILURE:
            if self.started <= target.lost_at:
                outcome = Outcome.NEUTRAL  # with a connection whose loss has been counted
            else:
                target.lost_at = call.env.clock()
        self._give_back(outcome)

    def _give_back(self, outcome: Outcome) -> None:
        permission, breaker = self.permission, self._call.state.breaker
        if permission is not None and breaker is not None:
            self.permission = None
            breaker.record(permission, outcome, started=self.started)


class Call:
    """The decisions of one call. `resumption` is set for a stream that can be resumed.

    `observer` may be set before the first attempt.
    """

    __slots__ = ("_fresh", "_hedged", "_inherited", "_keyed", "_max_attempts", "_retry",
                 "deadline", "env", "observer", "policy", "probe",
                 "resumption", "state", "turn")  # fmt: skip

    def __init__(
        self,
        state: MethodState,
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
            state: what the process knows of its target and method.
            env: what the process decides with.
            explicit: the caller's own timeout in seconds.
            declared: what the RPC being handled allows for this one, in seconds.
            inherits: the absolute deadline of the RPC being handled.
            inherited_attempt: `accord-attempt` of the RPC being handled.
            keyed: whether the call carries an idempotency key.
            max_attempts: the caller's own limit; it can only lower the contract's.
            token: the resume token that the request begins with; None: not resumable.
        """
        self.state = state
        self.policy: MethodPolicy = state.policy
        self.observer: ClientCall | None = None
        self.env = env
        self._inherited = inherited_attempt
        self._keyed = keyed
        self._max_attempts = max_attempts
        self._retry: Retry | None = None
        self._hedged = False
        self.probe: Permission | None = None  # of an attempt that is made again
        self.turn = 0  # of the last attempt
        self.deadline = deadlines.effective(
            env.clock(),
            explicit=explicit,
            contract=self.policy.timeout,
            declared=declared,
            inherits=inherits,
        )
        self.resumption: Resumption | None = None
        if token is not None:
            self.resumption = Resumption(
                token, limits=env.resume, clock=env.clock, random=env.random
            )
        self._fresh = True  # nothing has been asked for it yet

    def kept(self) -> None:
        """It is answered from the cache, without an attempt."""
        with self.env.lock:
            self.state.calls += 1
            self.state.hits += 1
            if self.observer is not None:
                self.observer.kept()

    def admit(self) -> Attempt | Refuse:
        """What to do now: make an attempt, or end the call without one."""
        with self.env.lock:
            if self._fresh:
                self._fresh = False
                self.state.calls += 1
                if not self._inherited:
                    # An answer from the cache earns no retries, nor does somebody else's retry.
                    self.state.target.budget.deposit()
            now = self.env.clock()
            left = math.inf if self.deadline is None else self.deadline - now
            # gRPC takes a timeout of 0 for a chance: work that is late already is never sent.
            if left > 0:
                attempt = self._inherited if self._retry is None else self._retry.attempt
                step = self._admit(now, left, attempt)
            else:
                step = Refuse(Code.DEADLINE_EXCEEDED, "deadline exceeded before the call was sent")
            if self.observer is not None:
                if isinstance(step, Attempt):
                    self.observer.sent(step)
                else:
                    self.observer.refused(step)
        return step

    def _admit(self, now: float, left: float, number: int) -> Attempt | Refuse:
        policy, breaker = self.policy, self.state.breaker
        if policy.server_streaming:
            left = min(left, policy.stream.max_lifetime + LIFETIME_GRACE)
        elif policy.attempt_timeout is not None and policy.attempt_timeout < left:
            left = policy.attempt_timeout
        permission = None
        # A stream that goes on has a back-off and a patience of its own instead.
        if breaker is not None and (self.resumption is None or self.resumption.attempt <= 1):
            admitted = self.probe or breaker.admit(stream=policy.server_streaming)
            if isinstance(admitted, Permission):
                permission, self.probe = admitted, None
            elif Dark.BREAKER in policy.dark:
                self.env.count(policy.method, "breaker.dark")
            else:
                self.env.count(policy.method, "breaker.refused")
                message = f"the circuit of {policy.method[1:]} is open"
                return Refuse(Code.UNAVAILABLE, message, CIRCUIT_OPEN, admitted.retry_after)
        self.state.target.turns += 1
        self.turn = self.state.target.turns
        return Attempt(self, left, number, now, permission)

    def hedge_delay(self) -> float | None:
        """Seconds after which `admit_hedge` should be asked; None: this call has no backup."""
        hedge = self.state.hedge
        if hedge is None or self._inherited or self._hedged or not self._repeatable():
            return None
        delay = hedge.delay()
        return None if delay is None else skip_waiting.delay(delay)

    def admit_hedge(self) -> Attempt | None:
        """Make a second attempt beside the first, if budget, breaker and deadline allow."""
        self._hedged = True
        policy, hedge = self.policy, self.state.hedge
        with self.env.lock:
            now = self.env.clock()
            left = math.inf if self.deadline is None else self.deadline - now
            if hedge is None or left <= 0:
                return None
            if Dark.HEDGE in policy.dark:
                self.env.count(policy.method, "hedge.dark")
                return None
            attempt = self._admit(now, left, 1)
            if isinstance(attempt, Refuse):
                return None
            if not hedge.send(self.state.target.budget) and Dark.RETRY_BUDGET not in policy.dark:
                attempt.released()
                self.state.target.turns -= 1
                return None
            self.env.count(policy.method, "hedge.sent")
            if self.observer is not None:
                self.observer.sent(attempt, hedge=True)
        return attempt

    def _repeatable(self) -> bool:
        """Whether sending the request twice is safe; a key protects where the contract obeys it."""
        return self.state.protected or (self._keyed and self.policy.key is not Key.NONE)

    def remaining(self) -> float | None:
        """Seconds left of the call, not below 0; None: no bound."""
        return None if self.deadline is None else max(0.0, self.deadline - self.env.clock())

    def after(self, attempt: Attempt, failure: Failure) -> Again | Raise:
        """What follows from the failure of an attempt, which asks for it."""
        resumption = self.resumption
        if self.own(failure):
            return EXHAUSTED  # it would be the same again, for the tiers above too
        if resumption is None:
            return self._again(failure)
        # gRPC's timer and this clock are not the same one.
        over = self.env.clock() >= attempt.started + attempt.timeout - TIMER_SLACK
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
        wait = skip_waiting.backoff(delay if left is None else min(delay, left))
        return Again(wait, resumes=True)

    def own(self, failure: Failure) -> bool:
        """Whether it is this side's to put right, or both sides' that do not shake hands."""
        return failure.own or (failure.handshake != "" and self.state.target.secure)

    def _again(self, failure: Failure) -> Again | Raise:
        policy, env = self.policy, self.env
        if self._retry is None:
            if policy.retry is None:
                # A mark is passed on whether or not this tier retries.
                told = told_to_wait(failure.pushback, failure.retry_info)
                return EXHAUSTED if told == NEVER else RAISE
            self._retry = Retry(
                policy.retry,
                repeatable=self._repeatable(),
                budget=None if Dark.RETRY_BUDGET in policy.dark else self.state.target.budget,
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
        self.state.retries += 1
        env.count(policy.method, "retry.sent")
        return Again(skip_waiting.backoff(step))
