"""The stages that a call passes on its way to a handler, and its answer on the way back.

context -> deadline -> authorisation -> depth -> rate limit -> concurrency limit -> validation
    -> idempotency -> fault injection -> handler

What costs nothing to refuse comes first: a call is not even decoded before there is room for it.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio

from accord import errors
from accord.aio import EOF
from accord.aio import server_handlers as handlers
from accord.aio.server_admission import Admission
from accord.aio.server_context import ServerContext
from accord.aio.server_idempotency import KeyedCalls
from accord.aio.server_timeouts import Watchdog, watch
from accord.context import CallContext
from accord.contract.policy import Key, MethodPolicy
from accord.interfaces import FieldViolation
from accord.policies.fault_injection import FAULT_KEY, INJECTED
from accord.policies.queue import Permit, Waiter
from accord.policies.resume import OPEN_KEY
from accord.server import error_mapping as failure
from accord.server.codec import Codec
from accord.server.error_mapping import Answer
from accord.server.observation import ServerCall, ServerMethod
from accord.server.request import (
    IGNORED,
    SILENT,
    Active,
    Entry,
    Peers,
    Settings,
    grpc_code,
    read_headers,
)


def answer_to(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> Answer | None:
    """What to answer with, or None if gRPC must see the exception itself."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            return None  # the caller has gone, or the server stops
        # The handler cancelled itself: without a status the caller would hang (grpc #29248).
        cancelled = errors.ServiceError(
            grpc.StatusCode.CANCELLED, "CANCELLED", "the work was cancelled"
        )
        cancelled.__cause__ = error
        return failure.answer_to(cancelled, call, translate)
    if isinstance(error, failure.Answered):
        return failure.answer_to(error, call, translate)
    if not isinstance(error, Exception) or _is_transport(error):
        return None
    return failure.answer_to(error, call, translate)


def _is_transport(error: BaseException) -> bool:
    """AbortError: the status is out already. Else: the caller has gone or the server stopped."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)


class Pipeline:
    """The stages of one method."""

    def __init__(
        self,
        settings: Settings,
        keyed: KeyedCalls | None,
        policy: MethodPolicy,
        codec: Codec,
        peers: Peers,
        *,
        streaming: bool,
    ) -> None:
        self._settings = settings
        self._control = settings.control
        self._keyed = keyed
        self._method = policy.method
        self._observation = ServerMethod(policy.method)
        self._entry = Entry(settings, policy, peers)
        self._codec = codec
        self._admission = Admission(
            policy.method,
            settings.control,
            streaming=streaming,
            authorize=settings.authorize,
        )

    def single(self, handle: handlers.Single, *, streamed: bool) -> Any:
        """A gRPC behaviour that answers with one response, as bytes."""
        admission, codec, entry = self._admission, self._codec, self._entry

        # Nearly all calls take this way, so it is one coroutine, and objects are made when needed.
        async def behaviour(requests: Any, grpc_context: Any) -> bytes:
            active = self._begin(grpc_context)
            call = active.call
            try:
                active.check()
                admission.check(call)
                request = None
                if not streamed:
                    # Before there is a place for it: who never sends its request must not hold one.
                    raw = await grpc_context.read()
                    if raw is EOF:
                        raise _no_request()
                    if active.observed is not None:
                        active.observed.received(len(raw), event=False)
                place = admission.enter(call)
                active.permit = (
                    await admission.wait(call, place) if isinstance(place, Waiter) else place
                )
                if not streamed:
                    request = codec.decode(raw)
                if call.policy.key is not Key.NONE:
                    call.idempotency = entry.identify(active, request)
                outer = ServerContext(grpc_context, codec, active.watchdog, active.observed)
                if call.idempotency is None or streamed or self._keyed is None:
                    if self._control.faults:
                        await self._harm(active)
                    active.begin()
                    response = await handle(request, outer)
                    answer = b"" if outer.failed() else codec.encode(response)
                else:
                    answer = await self._once(active, handle, request, outer)
                active.finish()
                if active.observed is not None:
                    active.observed.sent(len(answer), event=False)
                return answer
            except BaseException as error:
                await self._refuse(active, error)
                raise
            finally:
                self._end(active)

        return behaviour

    async def _once(
        self, active: "Handling", handle: handlers.Single, request: Any, outer: ServerContext
    ) -> bytes:
        """The answer to a call with a key, which is worked on once."""
        call = active.call
        assert self._keyed is not None
        assert call.idempotency is not None

        async def run() -> bytes:
            if self._control.faults:
                await self._harm(active)
            active.begin()
            response = await handle(request, outer)
            return b"" if outer.failed() else self._codec.encode(response)

        return await self._keyed.answer(call.idempotency, call.deadline, run)

    def many(self, handle: handlers.Many, *, streamed: bool) -> Any:
        """A gRPC behaviour that writes its responses."""
        admission, codec = self._admission, self._codec

        async def behaviour(requests: Any, grpc_context: Any) -> None:
            active = self._begin(grpc_context)
            call = active.call
            try:
                active.check()
                admission.check(call)
                request = None
                if not streamed:
                    raw = await grpc_context.read()
                    if raw is EOF:
                        raise _no_request()
                    if active.observed is not None:
                        active.observed.received(len(raw), event=False)
                place = admission.enter(call)
                active.permit = (
                    await admission.wait(call, place) if isinstance(place, Waiter) else place
                )
                if not streamed:
                    request = codec.decode(raw)
                call.idempotency = self._entry.identify(active, request)
                if self._control.faults:
                    await self._harm(active)
                active.begin()
                if call.policy.resume is not None:
                    # A quiet stream and a dead one look the same until the server says "open".
                    await grpc_context.send_initial_metadata(((OPEN_KEY, "open"),))
                await handle(
                    request, ServerContext(grpc_context, codec, active.watchdog, active.observed)
                )
                active.finish()
            except BaseException as error:
                await self._refuse(active, error)
                raise
            finally:
                self._end(active)

        return behaviour

    def _begin(self, grpc_context: Any) -> "Handling":
        """A call has come in."""
        headers, trace, ignored = read_headers(grpc_context)
        remaining = grpc_context.time_remaining()
        for name in ignored:
            self._control.counts.add(self._method, f"{IGNORED}.{name}")
        observed = self._observation.begin(trace, self._settings.clock)
        call = self._entry.enter(grpc_context, headers, remaining)
        return Handling(call, headers, grpc_context, watch(call.policy, remaining), observed)

    async def _refuse(self, active: "Handling", error: BaseException) -> None:
        """Answer a call that has failed; returns if gRPC must see the error itself."""
        active.watchdog.stop()
        grpc_context = active.grpc_context
        answer = answer_to(
            active.watchdog.expired() or error, active.call, self._settings.translate
        )
        if answer is None:
            return
        code = grpc_code(answer.status.code)
        active.code = code.name
        trailers = answer.trailers(grpc_context.trailing_metadata())
        await grpc_context.abort(code, answer.status.message, trailers)

    def _end(self, active: "Handling") -> None:
        """A call has ended, whatever way."""
        active.watchdog.stop()
        if active.permit is not None:
            # A caller that lost patience says nothing of the load; a deadline does.
            self._admission.end(
                active.permit,
                sample=active.begun
                and (active.code != "CANCELLED" or active.call.remaining() == 0),
            )
        if active.observed is not None:
            active.observed.finish(active.outcome())

    async def _harm(self, active: "Active") -> None:
        """The fault that an operator has injected: first a delay, then an abort."""
        drawn = self._control.faults.draw(self._method, active.headers.get(FAULT_KEY))
        if drawn is None:
            return
        fault, faults = drawn
        if fault.delay > 0:
            self._control.counts.add(self._method, "fault.delayed")
            try:
                await asyncio.sleep(fault.delay)
            finally:
                faults.done(fault)
        if fault.abort is not None:
            self._control.counts.add(self._method, "fault.aborted")
            raise errors.ServiceError(grpc_code(fault.abort), INJECTED, "a fault was injected")


class Handling(Active):
    """A call that is being handled in an event loop."""

    __slots__ = ("code", "grpc_context", "observed", "permit", "watchdog")

    def __init__(
        self,
        call: CallContext,
        headers: dict[str, Any],
        grpc_context: Any,
        watchdog: Watchdog,
        observed: ServerCall | None,
    ) -> None:
        super().__init__(call, headers)
        self.grpc_context = grpc_context
        self.watchdog = watchdog
        self.observed = observed
        self.permit: Permit | None = None
        self.code = "CANCELLED"

    def outcome(self) -> str:
        """Name of the status with which the call has ended."""
        status = self.grpc_context.code()
        if status not in SILENT:  # the handler has set it, or aborted, by itself
            return status.name if isinstance(status, grpc.StatusCode) else grpc_code(status).name
        if self.code == "CANCELLED" and self.call.remaining() == 0:
            return "DEADLINE_EXCEEDED"
        return self.code

    def check(self) -> None:
        """Raise DeadlineExceeded if the one who asked has gone: such work is not begun."""
        call = self.call
        if call.deadline is not None and call.clock() >= call.deadline:
            raise errors.DeadlineExceeded("the deadline had passed when the call arrived")

    def finish(self) -> None:
        """The handler has returned. Raises the error of a time limit that it has passed."""
        late = self.watchdog.expired()
        if late is not None:
            raise late
        self.code = "OK"


def _no_request() -> errors.InvalidArgument:
    return errors.InvalidArgument(
        FieldViolation("", "the call has no request"), reason="UNDECODABLE"
    )
