"""Calls with one request and one response that cost next to nothing.

gRPC runs an interceptor in a task of its own, which costs a tenth of a small call. Here the first
attempt is made at once and is carried on by whoever awaits it; only what comes after a failure, or
after so long that a backup is due, takes a task.
"""

import asyncio
import weakref
from collections.abc import Callable, Generator
from typing import Final, Generic

import grpc
import grpc.aio

from accord.aio.client_attempts import Attempts, given
from accord.aio.client_call import CallBase, EndedStatus, attempting
from accord.aio.client_core_call import direct
from accord.aio.client_hedge import first, race
from accord.aio.client_types import (
    AioOutgoing,
    CallStatus,
    DoneCallback,
    Error,
    Response,
)
from accord.client.call import Attempt
from accord.client.method_state import MethodState
from accord.client.request import Outgoing, failure_from
from accord.client.types import (
    RAISE,
    Again,
    Details,
    Given,
    P,
    Raise,
    Refuse,
    Req,
    Res,
    stands_for,
    tell,
)

CANCELLED: Final = grpc.StatusCode.CANCELLED

_CANCELLED_HERE: Final = EndedStatus(
    # Of such a call gRPC has no metadata either, whatever its stubs say.
    Error(CANCELLED, None, None, "Locally cancelled by application!", "")  # type: ignore[arg-type]
)

Active = set["weakref.ref[CallBase]"]
"""The calls of a channel that have not ended."""


@stands_for(grpc.aio.UnaryUnaryMultiCallable)
class UnaryCallable(Generic[Req, Res, P]):
    """A method with one request and one response."""

    def __init__(
        self,
        attempts: Attempts,
        method: str,
        made: "grpc.aio.UnaryUnaryMultiCallable[Req, Res]",
        given: Given[P],
        active: Active,
    ) -> None:
        """`made` is gRPC's own; `active` are the calls of its channel."""
        self.attempts = attempts
        self.bare = direct(made)
        self.loop = asyncio.get_running_loop()
        self.active = active
        self._method = method
        self._given = given
        self._intercepted: Callable[[Details, Req], grpc.aio.UnaryUnaryCall[Req, Res]]
        self._intercepted = attempting(made)

    def __call__(
        self, request: Req, *args: P.args, **kwargs: P.kwargs
    ) -> "UnaryCall[Req, Res] | grpc.aio.UnaryUnaryCall[Req, Res]":
        """The call object. What goes wrong is raised when it is awaited."""
        details = self._given(self._method, *args, **kwargs)
        state = self.attempts.quick(self._method) if details.compression is None else None
        if state is None:
            return self._intercepted(details, request)
        return UnaryCall(self, details, request, state)

    async def start(self, details: Details, request: Req) -> Response[Res]:
        """Make an attempt."""
        return self.bare(details, request)


@stands_for(grpc.aio.UnaryUnaryCall)
class UnaryCall(CallBase, Generic[Req, Res]):
    """A call that whoever awaits it carries on; asked for anything else, it gets a task."""

    # Of the class: most calls never set them.
    _driven = _finished = _cancelled = False
    _error: BaseException | None = None
    _task: "asyncio.Task[Res] | None" = None
    """Carries the call on when nobody awaits it."""
    _rest: "asyncio.Task[Response[Res]] | asyncio.Task[tuple[Attempt, Response[Res]]] | None" = None
    """Whatever comes after a first attempt that has failed, or beside one that takes long."""
    _waiting: asyncio.Future[None] | None = None
    _callbacks: tuple[DoneCallback, ...] = ()
    _rpc: Response[Res] | None = None
    """The first attempt, then whatever has the response."""
    _step: Attempt | Refuse | None = None
    """The first attempt; None: the answer was kept."""
    _due: asyncio.TimerHandle | None = None
    """When a backup is: the call goes on by then, whoever awaits it."""

    def __init__(
        self,
        made_by: UnaryCallable[Req, Res, ...],
        details: Details,
        request: Req,
        state: MethodState,
    ) -> None:
        self._made_by = made_by
        self._request = request
        self._noted: weakref.ref[CallBase] = weakref.ref(self, made_by.active.discard)
        made_by.active.add(self._noted)
        outgoing: AioOutgoing[Req, Res] = Outgoing(made_by.attempts, details, request, state)
        self._outgoing = outgoing
        kept = outgoing.lookup(request)
        if kept is not None:
            self._rpc = given(kept)
            return
        step = self._step = outgoing.call.admit()
        if isinstance(step, Attempt):
            try:
                self._rpc = made_by.bare(outgoing.details_of(step), request)
            except BaseException as error:
                step.released()
                outgoing.finish(type(error).__name__)
                raise
            if state.hedge is not None and (delay := outgoing.call.hedge_delay()) is not None:
                self._due = made_by.loop.call_later(delay, self._carry_on)

    def __del__(self) -> None:
        if not self._driven and self._rpc is not None and not self._made_by.loop.is_closed():
            # Sent and forgotten: now the loop carries it on. The collector may be in any thread.
            self._made_by.loop.call_soon_threadsafe(self._carry_on)

    def __await__(self) -> Generator[None, None, Res]:
        if not self._driven:
            self._driven = True
            return (yield from self._drive().__await__())
        if self._task is not None:
            return (yield from self._task.__await__())
        return (yield from self._shared().__await__())

    async def _shared(self) -> Res:
        """The response, which somebody else awaits too, or has."""
        try:
            await self._settle()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        if self._cancelled or self._rpc is None:
            raise asyncio.CancelledError
        return await self._rpc

    async def _drive(self) -> Res:
        """The response. Runs once."""
        outgoing, step, rpc = self._outgoing, self._step, self._rpc
        try:
            if isinstance(step, Refuse):
                return await self._recover(outgoing.refusal(step), RAISE)
            assert rpc is not None  # it was made
            if step is None:
                return await rpc
            try:
                if self._due is not None:
                    step, rpc = await self._hedged(step, rpc, self._due)
                response = await rpc
            except Error as error:
                return await self._recover(error, step.failed(failure_from(error)))
            except BaseException:
                rpc.cancel()
                step.released()
                raise
            step.answered()
            if outgoing.call.state.remembers:
                outgoing.keep(response, await rpc.trailing_metadata())
            outgoing.finish("OK")
            return response
        except asyncio.CancelledError:
            self._cancelled = True
            outgoing.finish("CANCELLED")
            raise
        except BaseException as error:
            self._error = error
            outgoing.finish(type(error).__name__)
            raise
        finally:
            self._end()

    async def _hedged(
        self, attempt: Attempt, rpc: Response[Res], due: asyncio.TimerHandle
    ) -> tuple[Attempt, Response[Res]]:
        """The attempt whose end decides: this one, if it is over before a backup is due."""
        made_by = self._made_by
        due.cancel()
        await first([rpc], due.when() - made_by.loop.time())
        if rpc.done():
            return attempt, rpc
        self._rest = racing = asyncio.ensure_future(
            race(self._outgoing, made_by.start, self._request, attempt, rpc, 0.0)
        )
        attempt, self._rpc = await racing
        self._rest = None
        return attempt, self._rpc

    async def _recover(self, error: Error, step: Again | Raise) -> Res:
        outgoing, made_by = self._outgoing, self._made_by
        if isinstance(step, Raise):
            outgoing.mark(error, exhausted=step.exhausted)
            if outgoing.fallback(error) is None:
                outgoing.finish(error.code().name)
                raise error
        self._rest = recovering = asyncio.ensure_future(
            made_by.attempts.recover(made_by.start, outgoing, self._request, error, step)
        )
        self._rpc = await recovering
        return await self._rpc

    def _end(self) -> None:
        self._finished = True
        self._made_by.active.discard(self._noted)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            tell(callbacks, self)

    def _carry_on(self) -> None:
        """See that the call ends although nobody awaits it."""
        if not self._driven:
            self._driven = True
            self._task = asyncio.ensure_future(self._drive())
            self._task.add_done_callback(_retrieve)

    async def _settle(self) -> None:
        """Wait until the call has ended."""
        if self._finished:
            return
        self._carry_on()
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._waiting,))  # not the future itself: others wait for it too

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        if self._finished:
            return False
        if self._rest is not None:
            return self._rest.cancel()
        if self._rpc is not None:
            self._rpc.cancel()
        if self._task is not None:
            self._task.cancel()
        elif not self._driven:
            self._driven = self._cancelled = True
            if isinstance(self._step, Attempt):
                self._step.released()
            self._outgoing.finish("CANCELLED")
            self._end()
        return True

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        error = self._error
        ended_so = isinstance(error, Error) and error.code() is CANCELLED
        return self._finished and (self._cancelled or ended_so)

    def done(self) -> bool:
        """Whether the call has ended."""
        if not self._finished and (self._rpc is None or self._rpc.done()):
            self._carry_on()
        return self._finished

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back when the call has ended, at once if it has."""
        if self._finished:
            callback(self)
        else:
            self._callbacks += (callback,)
            self._carry_on()

    def time_remaining(self) -> float | None:
        """Seconds left of the whole call, attempts and waits included."""
        return self._outgoing.call.remaining()

    async def _status(self) -> CallStatus:
        await self._settle()
        if isinstance(self._error, Error):
            return EndedStatus(self._error)
        if self._cancelled or self._rpc is None:
            return _CANCELLED_HERE
        return self._rpc

    async def wait_for_connection(self) -> None:
        """Wait until the call has ended: gRPC's own does no less. Raises as awaiting it does."""
        await self._shared()


def _retrieve(task: asyncio.Task[Res]) -> None:
    """Nobody need await the task: its failure is what `code` says."""
    if not task.cancelled():
        task.exception()
