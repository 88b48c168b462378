"""Who may call, and whether there is room: the stages before a request is even decoded.

    authorisation -> depth -> rate limit -> concurrency limit

Each refusal is counted by method and reason; in dark mode it is counted and the call passes.
"""

import asyncio
import logging
from typing import Any, Final

from accord import context, errors, telemetry
from accord.context import CallContext
from accord.contract import Dark
from accord.control import Control
from accord.policies.depth import TOO_DEEP, too_deep
from accord.policies.limiter import OVERLOADED
from accord.policies.queue import Permit, Waiter
from accord.policies.ratelimit import RATE_LIMITED
from accord.policies.refused import Refused

NOT_ALLOWED: Final = "NOT_ALLOWED"
"""ErrorInfo reason: the contract does not list the caller's identity."""

NO_IDENTITY: Final = "NO_IDENTITY"
"""ErrorInfo reason: the caller has no verified identity, where one is needed."""

_EVERYBODY: Final = "*"
_OPEN: Final = "/grpc."  # health and reflection have no contract, and probes no certificate


class Admission:
    """Admits the calls of one method."""

    __slots__ = ("_authorize", "_control", "_limiter", "_method", "_open")

    def __init__(self, method: str, control: Control, *, streaming: bool, authorize: bool) -> None:
        self._method = method
        self._control = control
        self._authorize = authorize
        self._open = method.startswith(_OPEN)
        self._limiter = control.limiter(method, streaming=streaming)

    def check(self, call: CallContext) -> None:
        """Whether this caller may do this now. Raises ServiceError."""
        policy = call.policy
        if not self._open:
            self._check_identity(call)
        if too_deep(call.depth, policy.max_depth) and self._acts("depth", Dark.DEPTH, call):
            telemetry.log(
                logging.WARNING,
                "a chain of calls is too long",
                method=call.method,
                depth=call.depth,
                principal=call.principal,
                trace_id=telemetry.trace_id(),
            )
            raise errors.FailedPrecondition(
                TOO_DEEP,
                f"is called across {call.depth} hops, and at most {policy.max_depth} are allowed",
            )
        if policy.limit.rate is not None:
            refused = self._control.rate(policy, call.principal)
            if refused is not None and self._acts("rate_limit", Dark.RATE_LIMIT, call):
                raise errors.ResourceExhausted(
                    RATE_LIMITED, refused.retry_after, "the caller's rate limit is used up"
                )

    def _check_identity(self, call: CallContext) -> None:
        """Identities come from certificates: without mutual TLS nobody has one.

        An anonymous caller passes, as on a development machine's loopback, unless the mesh says
        that identities are needed.
        """
        if call.principal == context.ANONYMOUS:
            if self._authorize:
                self._control.counts.add(self._method, "authorization.refused")
                raise errors.PermissionDenied(NO_IDENTITY, "needs a certificate with an identity")
            return
        policy = call.policy
        if not policy.declared or _EVERYBODY in policy.allow:
            return
        if call.principal not in policy.allow:
            self._control.counts.add(self._method, "authorization.refused")
            raise errors.PermissionDenied(
                NOT_ALLOWED, f"{call.principal} may not call {self._method[1:]}"
            )

    def begin(self, call: CallContext) -> Permit | Waiter | None:
        """A permit, a place in the queue for `wait`, or None without a limit.

        Raises ResourceExhausted. A permit is given back with `end`.
        """
        limiter = self._limiter
        if limiter is None:
            return None
        if Dark.CONCURRENCY_LIMIT in call.policy.dark:
            found = limiter.acquire(call.priority)
        else:
            found = limiter.acquire(call.priority, _Bell())
        if isinstance(found, Refused):
            self._shed(call, found)
            return None
        return found

    async def wait(self, call: CallContext, waiter: Waiter) -> Permit:
        """The permit of a call that has queued. Raises ResourceExhausted or DeadlineExceeded."""
        limiter, bell = self._limiter, waiter.notify
        assert limiter is not None
        assert isinstance(bell, _Bell)
        left = call.remaining()
        patience = limiter.max_wait if left is None else min(left, limiter.max_wait)
        try:
            await bell.rung(patience)
        except BaseException:
            limiter.leave(waiter)  # the caller has gone
            raise
        if waiter.permit is not None:
            return waiter.permit
        refused = waiter.refused or limiter.leave(waiter)
        self._control.counts.add(self._method, f"limit.refused.{call.priority.name}")
        if left is not None and left <= limiter.max_wait:
            raise errors.DeadlineExceeded("the deadline passed while the call waited for a place")
        raise _overloaded(refused)

    def end(self, permit: Permit, *, sample: bool) -> None:
        """The call is over; `sample` as in `Limiter.release`."""
        if self._limiter is not None:
            self._limiter.release(permit, sample=sample)

    def _shed(self, call: CallContext, refused: Refused) -> None:
        if Dark.CONCURRENCY_LIMIT in call.policy.dark:
            self._control.counts.add(self._method, "limit.dark")
            return
        self._control.counts.add(self._method, f"limit.refused.{call.priority.name}")
        raise _overloaded(refused)

    def _acts(self, name: str, dark: Dark, call: CallContext) -> bool:
        """Count a refusal; False if it must not be acted on."""
        acts = dark not in call.policy.dark
        self._control.counts.add(self._method, f"{name}.{'refused' if acts else 'dark'}")
        return acts


class _Bell:
    """Rings once, from any thread; nothing is allocated for a call that does not wait."""

    __slots__ = ("_loop", "_rings")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rings: Any = None

    def __call__(self) -> None:
        if self._loop is None:
            self._rings = True  # before anybody listens
        else:
            self._loop.call_soon_threadsafe(_ring, self._rings)

    async def rung(self, patience: float) -> None:
        """Return when it rings or after `patience` seconds."""
        if self._rings:
            return
        loop = asyncio.get_running_loop()
        ring = self._rings = loop.create_future()
        self._loop = loop
        timer = loop.call_later(patience, _ring, ring)
        try:
            await ring
        finally:
            timer.cancel()


def _ring(ring: "asyncio.Future[None]") -> None:
    if not ring.done():
        ring.set_result(None)


def _overloaded(refused: Refused) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        OVERLOADED, refused.retry_after, "the server has more work than it can do"
    )
