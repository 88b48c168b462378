"""Who is let in: the stages before a request is even decoded.

    authorisation -> depth -> rate limit -> concurrency limit

Each refusal is counted by method and reason; in dark mode it is counted and the call passes.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from accord import errors
from accord._log import log
from accord.context import CallContext
from accord.contract.policy_types import Dark
from accord.policies.call_depth import TOO_DEEP, too_deep
from accord.policies.limiter import OVERLOADED
from accord.policies.queue import Permit, Waiter
from accord.policies.rate_limit import RATE_LIMITED
from accord.policies.types import Refused
from accord.server.authorization import denial
from accord.server.request import own
from accord.server.state import ServerState
from accord.telemetry.propagation import trace_id


class Admission:
    """Admits the calls of one method."""

    __slots__ = ("_authorize", "_limiter", "_lock", "_method", "_open", "_state")

    def __init__(
        self,
        method: str,
        state: ServerState,
        lock: AbstractContextManager[bool | None],
        *,
        streaming: bool,
        authorize: bool,
    ) -> None:
        """`lock` guards what the process counts."""
        self._method = method
        self._state = state
        self._lock = lock
        self._authorize = authorize
        # Probes have no certificate. The others of gRPC's own show what the process does.
        self._open = own(method) and not (authorize and not method.startswith("/grpc.health."))
        self._limiter = state.limiter(method, streaming=streaming)

    def check(self, call: CallContext) -> None:
        """Whether this caller may do this now. Raises ServiceError."""
        policy = call.policy
        if not self._open:
            denied = denial(call, identified=self._authorize)
            if denied is not None:
                self._count("authorization.refused")
                raise denied
        if (
            policy.max_depth is not None
            and too_deep(call.depth, policy.max_depth)
            and self._acts("depth", Dark.DEPTH, call)
        ):
            log(
                logging.WARNING,
                "a chain of calls is too long",
                method=call.method,
                depth=call.depth,
                principal=call.principal,
                trace_id=trace_id(),
            )
            raise errors.FailedPrecondition(
                TOO_DEEP,
                f"is called across {call.depth} hops, and at most {policy.max_depth} are allowed",
            )
        if policy.limit is not None and policy.limit.rate is not None:
            with self._lock:
                refused = self._state.rate(policy, call.principal)
            if refused is not None and self._acts("rate_limit", Dark.RATE_LIMIT, call):
                raise errors.ResourceExhausted(
                    RATE_LIMITED, refused.retry_after, "the caller's rate limit is used up"
                )

    def enter(
        self, call: CallContext, bell: Callable[[], Callable[[], None]]
    ) -> Permit | Waiter | None:
        """A permit, a place in the queue, or None without a limit. Raises ResourceExhausted.

        `bell` makes what is called once, from any thread, when a place in the queue has become a
        permit, or is lost: see `admitted`. A permit is given back with `end`.
        """
        limiter = self._limiter
        if limiter is None or call.policy.limit is None:
            return None
        permit = limiter.grant()
        if permit is not None:
            return permit
        acts = Dark.CONCURRENCY_LIMIT not in call.policy.dark
        found = limiter.acquire(call.priority, bell() if acts else None)
        if not isinstance(found, Refused):
            return found
        if acts:
            raise self._overloaded(call, found)
        self._count("limit.dark")
        return None

    def patience(self, call: CallContext) -> float:
        """Seconds that a call may wait in the queue."""
        left, longest = call.remaining(), 0.0 if self._limiter is None else self._limiter.max_wait
        return longest if left is None else min(left, longest)

    def leave(self, waiter: Waiter) -> None:
        """A call in the queue is given up: its caller has gone."""
        if self._limiter is not None:
            self._limiter.leave(waiter)

    def admitted(self, call: CallContext, waiter: Waiter) -> Permit:
        """The permit of a call that has waited. Raises ResourceExhausted or DeadlineExceeded."""
        limiter = self._limiter
        assert limiter is not None
        if waiter.permit is not None:
            return waiter.permit
        overloaded = self._overloaded(call, waiter.refused or limiter.leave(waiter))
        if call.remaining() == 0:
            raise errors.DeadlineExceeded(
                message="the deadline passed while the call waited for a place"
            )
        raise overloaded

    def end(self, permit: Permit, *, sample: bool) -> None:
        """The call is over; `sample` as in `Limiter.release`."""
        if self._limiter is not None:
            self._limiter.release(permit, sample=sample)

    def _overloaded(self, call: CallContext, refused: Refused) -> errors.ResourceExhausted:
        self._count(f"limit.refused.{call.priority.name}")
        return errors.ResourceExhausted(
            OVERLOADED, refused.retry_after, "the server has more work than it can do"
        )

    def _acts(self, name: str, dark: Dark, call: CallContext) -> bool:
        """Count a refusal; False if it must not be acted on."""
        acts = dark not in call.policy.dark
        self._count(f"{name}.{'refused' if acts else 'dark'}")
        return acts

    def _count(self, name: str) -> None:
        with self._lock:
            self._state.counts.add(self._method, name)
