"""The wait for a place, of a call that is handled in an event loop."""

import asyncio

from accord.policies.limiter import Limiter
from accord.policies.queue import Waiter
from accord.server.admission import Admission
from accord.server.stage_order import IncomingCall


class Bell:
    """Rings once, from any thread; it costs nothing until somebody listens."""

    __slots__ = ("_loop", "_rang", "_ring")

    def __init__(self) -> None:
        self._rang = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ring: asyncio.Future[None] | None = None

    def __call__(self) -> None:
        """Ring."""
        self._rang = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    async def rung(self, patience: float) -> None:
        """Return when it rings or after `patience` seconds."""
        loop = asyncio.get_running_loop()
        self._ring = loop.create_future()
        self._loop = loop
        if self._rang:  # before anybody listened
            return
        timer = loop.call_later(patience, self._end)
        try:
            await self._ring
        finally:
            timer.cancel()

    def _end(self) -> None:
        if self._ring is not None and not self._ring.done():
            self._ring.set_result(None)


async def wait_for_place(admission: Admission, incoming: IncomingCall, waiter: Waiter) -> None:
    """Until a call that has to wait has its place. Raises ResourceExhausted or DeadlineExceeded."""
    bell = waiter.notify
    assert isinstance(bell, Bell)
    if admission.limiter.rounds_due():
        _turn(asyncio.get_running_loop(), admission.limiter)
    while incoming.permit is None:
        try:
            await bell.rung(admission.patience(incoming.call))
        except BaseException:
            admission.limiter.leave(waiter)  # the caller has gone
            raise
        incoming.permit = admission.admitted(incoming.call, waiter)


def _turn(loop: asyncio.AbstractEventLoop, limiter: Limiter) -> None:
    """Begin calls in rounds, for as long as there is need."""
    pause = limiter.turn()
    if pause:
        loop.call_later(pause, _turn, loop, limiter)
    elif pause is not None:
        loop.call_soon(_turn, loop, limiter)
