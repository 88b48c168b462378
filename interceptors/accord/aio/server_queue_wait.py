"""The wait for a place, of a call that is handled in an event loop."""

import asyncio
from threading import get_ident

from accord.policies.limiter import Limiter
from accord.policies.queue import Waiter
from accord.server.admission import Admission
from accord.server.stage_order import IncomingCall


class Bell:
    """Rings once, from any thread."""

    __slots__ = ("_ring", "_thread", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ring = self.loop.create_future()
        self._thread = get_ident()

    def __call__(self) -> None:
        """Ring."""
        if get_ident() == self._thread:
            self._end()  # to wake the loop costs as much as all else that is done for a call
        else:
            self.loop.call_soon_threadsafe(self._end)

    async def rung(self, patience: float) -> None:
        """Return when it rings or after `patience` seconds."""
        timer = self.loop.call_later(patience, self._end)
        try:
            await self._ring
        finally:
            timer.cancel()
        self._ring = self.loop.create_future()

    def _end(self) -> None:
        if not self._ring.done():
            self._ring.set_result(None)


async def wait_for_place(admission: Admission, incoming: IncomingCall, waiter: Waiter) -> None:
    """Until a call that has to wait has its place. Raises ResourceExhausted or DeadlineExceeded."""
    bell = waiter.notify
    assert isinstance(bell, Bell)
    if admission.limiter.rounds_due():
        _turn(bell.loop, admission.limiter)
    while incoming.permit is None:
        try:
            await bell.rung(admission.patience(incoming.call, waiter))
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
