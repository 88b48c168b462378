"""The way of a call through its stages, in an event loop: see `accord.server.stage_order`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic

import grpc
import grpc.aio

from accord import errors
from accord.aio import EOF
from accord.aio.server_context import GrpcContext, ServerContext
from accord.aio.server_core import Resets
from accord.aio.server_handler_shapes import Behaviour, Handle, HandleMany
from accord.aio.server_idempotency import KeyedCalls
from accord.aio.server_queue_wait import Bell, wait_for_place
from accord.aio.server_timeouts import Watchdog
from accord.context import CallContext
from accord.contract.policy_types import Key
from accord.server import error_mapping
from accord.server.error_mapping import Answer
from accord.server.stage_order import CANCELLED, OPENED, IncomingCall, Stages
from accord.server.timeouts import ANSWER_TIME, SLOW_READER
from accord.server.types import NO_ERROR, Req, Res


@dataclass(frozen=True, slots=True)
class Pipeline(Generic[Req, Res]):
    """Walks the stages of one method."""

    stages: Stages[Req, Res]
    keyed: KeyedCalls | None
    """The calls of this process with a key, if there is a store of their answers."""
    resets: Resets

    def behaviour(
        self,
        *,
        single: Handle[Req, Res] | None = None,
        many: HandleMany[Req, Res] | None = None,
    ) -> Behaviour:
        """A gRPC behaviour around a handler: of one response, or of those that it writes."""
        stages, codec, faults = self.stages, self.stages.codec, self.stages.faults
        streamed = stages.streamed
        keyed = None if streamed or single is None else self.keyed

        # Nearly all calls take this way, so it is one coroutine, and objects are made when needed.
        async def behave(requests: AsyncIterator[bytes], grpc_context: GrpcContext) -> bytes:
            incoming = stages.arrive(grpc_context, grpc_context.time_remaining())
            limits, observed, watchdog = incoming.limits, incoming.observed, None
            if limits is not None:
                watchdog = Watchdog(incoming.call.policy, limits)
            try:
                stages.check(incoming)
                raw = None
                if not streamed:
                    raw = await grpc_context.read()
                    # Half of what a caller has sent must not have an effect that counts once.
                    once = incoming.call.policy.key is Key.REQUIRED
                    if raw is EOF or (once and await grpc_context.read() is not EOF):
                        raw = None
                waiter = stages.enter(incoming, raw, Bell, looped=True)
                if waiter is not None:
                    await wait_for_place(stages.admission, incoming, waiter)
                request = stages.accept(incoming, raw)
                context = ServerContext(grpc_context, codec, watchdog, observed)
                answer = b""
                if keyed is not None and incoming.call.idempotency is not None and single:
                    answer = await self._once(keyed, incoming, single, request, context)
                else:
                    if faults.injected:
                        await self._delay(incoming)
                    stages.begin(incoming)
                    if single is not None:
                        response = await single(request, context)
                        if grpc_context.code() in NO_ERROR:
                            answer = codec.encode(response)
                    elif many is not None:
                        if incoming.call.policy.resume is not None:
                            await grpc_context.send_initial_metadata(OPENED)
                        await many(request, context)
                late = None if watchdog is None else watchdog.expired()
                if late is not None:
                    raise late
                incoming.status = "OK"
                if observed is not None and single is not None:
                    observed.sent(len(answer), event=False)
                return answer
            except BaseException as error:
                await self._refuse(incoming, grpc_context, watchdog, error)
                raise
            finally:
                if watchdog is not None:
                    watchdog.stop()
                stages.end(incoming, grpc_context)

        return behave

    async def _once(
        self,
        keyed: KeyedCalls,
        incoming: IncomingCall,
        handle: Handle[Req, Res],
        request: Req | None,
        context: ServerContext[Req, Res],
    ) -> bytes:
        """The answer to a call with a key, which is worked on once."""
        call = incoming.call
        assert call.idempotency is not None

        async def run() -> bytes:
            if self.stages.faults.injected:
                await self._delay(incoming)
            self.stages.begin(incoming)
            response = await handle(request, context)
            return self.stages.codec.encode(response) if context.code() in NO_ERROR else b""

        return await keyed.answer(call.idempotency, call.deadline, run)

    async def _delay(self, incoming: IncomingCall) -> None:
        """The delay that an operator has injected."""
        with self.stages.harm(incoming) as delay:
            if delay > 0:
                await asyncio.sleep(delay)

    async def _refuse(
        self,
        incoming: IncomingCall,
        grpc_context: GrpcContext,
        watchdog: Watchdog | None,
        error: BaseException,
    ) -> None:
        """Answer a call that has failed; returns if gRPC must see the error itself."""
        if watchdog is not None:
            watchdog.stop()
            error = watchdog.expired() or error
        answer = _answer_to(error, incoming.call, self.stages.translate, grpc_context)
        if answer is None:
            return
        code = errors.grpc_code(answer.status.code)
        incoming.status = code.name
        trailers = answer.trailers(grpc_context.trailing_metadata())
        longest = None
        if watchdog is not None:
            longest = ANSWER_TIME if error is watchdog.error else SLOW_READER
        try:
            async with asyncio.timeout(longest):
                await grpc_context.abort(code, answer.status.message, trailers)
        except TimeoutError:
            self.resets.reset()
            raise asyncio.CancelledError from None


def _answer_to(
    error: BaseException,
    call: CallContext,
    translate: errors.Translate | None,
    grpc_context: GrpcContext,
) -> Answer | None:
    """What to answer with, or None if gRPC must see the exception itself."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            return None  # the caller has gone, or the server stops
        # The handler cancelled itself: without a status the caller would hang (grpc #29248).
        cancelled = errors.ServiceError(
            grpc.StatusCode.CANCELLED, CANCELLED, "the work was cancelled"
        )
        cancelled.__cause__ = error
        return error_mapping.answer_to(cancelled, call, translate)
    if not isinstance(error, Exception) or _is_transport(error):
        return None
    return error_mapping.answer_to(error, call, translate, grpc_context)


def _is_transport(error: BaseException) -> bool:
    """AbortError: the status is out already. Else: the caller has gone or the server stopped."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)
