"""Who is let in: the stages before a request is even decoded.

    authorisation -> depth -> rate limit -> concurrency limit

Each refusal is counted by method and reason; in dark mode it is counted and the call passes.
"""

import logging
from collections.abc import Callable
from functools import partial

from accord import errors
from accord._log import log
from accord.context import CallContext
from accord.contract.policy_types import Dark
from accord.policies.call_depth import TOO_DEEP, too_deep
from accord.policies.limiter import OVERLOADED
from accord.policies.queue import PATIENCE, Permit, Waiter
from accord.policies.rate_limit import RATE_LIMITED
from accord.policies.types import Refused
from accord.server.authorization import Authorize, check, opened
from accord.server.callers import NOBODY, Caller
from accord.server.refusal_log import allowed
from accord.server.request import own
from accord.server.state import ServerState
from accord.telemetry.propagation import trace_id


class Admission:
    """Admits the calls of one method."""

    def __init__(
        self, method: str, state: ServerState, *, streaming: bool, authorize: Authorize
    ) -> None:
        self._state = state
        self._count = partial(state.counts.add, method)
        self._authorize = authorize
        # gRPC's own, but for health, show what the process does.
        self._open = opened(method) or (own(method) and not authorize)
        self._streaming = streaming
        self._line = state.line(method, streaming=streaming)
        self.limiter = state.limiter

    def check(self, call: CallContext, caller: Caller = NOBODY) -> None:
        """Whether this caller may do this now. Raises ServiceError."""
        policy = call.policy
        if caller.reason or (not self._open and (self._authorize or policy.allow)):
            self._authorized(call, caller)
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
            refused = self._state.rate(policy.method, policy.limit.rate, call.principal)
            if refused is not None and self._acts("rate_limit", Dark.RATE_LIMIT, call):
                raise errors.ResourceExhausted(
                    RATE_LIMITED, refused.retry_after, "the caller's rate limit is used up"
                )

    def _authorized(self, call: CallContext, caller: Caller) -> None:
        refused, dark = check(call, self._authorize, caller)
        found = refused or dark
        if found is None:
            allowed(call.principal, call.method)
            return
        self._count(f"authorization.{'dark' if refused is None else 'refused'}.{found.reason}")
        self._state.refusals.note(call.principal, call.method, found.reason, dark=refused is None)
        if refused is not None:
            raise refused

    def share(self, call: CallContext, holders: tuple[str, ...]) -> bool:
        """Whether a stream has taken a place of its holders' share. Raises ResourceExhausted."""
        if self._line is None or call.policy.limit is None:
            return False
        refused = self._state.shares.take(holders, call.priority)
        if refused is not None and self._acts("stream_share", Dark.CONCURRENCY_LIMIT, call):
            raise errors.ResourceExhausted(
                OVERLOADED, refused.retry_after, "this caller has its share of the streams"
            )
        return refused is None

    def enter(
        self,
        call: CallContext,
        bell: Callable[[], Callable[[], None]],
        *,
        waited: float,
        looped: bool,
    ) -> Permit | Waiter | None:
        """A permit, a place in the line, or None without a limit. Raises ResourceExhausted.

        `waited`: seconds since the call came; the others as in `Limiter.acquire`. The driver of a
        waiter asks `admitted` when the bell rings and when its `patience` is over. A permit is
        given back to the limiter.
        """
        line = self._line
        if line is None or call.policy.limit is None:
            return None
        if not self._streaming:
            line.bound = call.policy.limit.max_concurrent
        acts = Dark.CONCURRENCY_LIMIT not in call.policy.dark
        found = self.limiter.acquire(
            line,
            call.priority,
            bell if acts and not self._streaming else None,
            waited=waited,
            looped=looped,
        )
        if not isinstance(found, Refused):
            return found
        if acts:
            raise self._overloaded(call, found)
        self._count("limit.dark")
        return None

    def patience(self, call: CallContext, waiter: Waiter) -> float:
        """Seconds that a call waits before it asks what has become of it."""
        left, longest = call.remaining(), PATIENCE[call.priority]
        waited = call.clock() - waiter.since
        # Those who may go on waiting ask ever less often: a thousand would do nothing else.
        longest = longest - waited if waited < longest else waited
        return longest if left is None else min(left, longest)

    def admitted(self, call: CallContext, waiter: Waiter) -> Permit | None:
        """The permit of a waiter; None: it goes on waiting.

        Raises ResourceExhausted or DeadlineExceeded.
        """
        found = self.limiter.begin(waiter)
        if isinstance(found, Refused):
            raise self._overloaded(call, found)
        if found is None and call.remaining() == 0:
            self.limiter.leave(waiter)
            raise errors.DeadlineExceeded(
                message="the deadline passed while the call waited for a place"
            )
        return found

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
