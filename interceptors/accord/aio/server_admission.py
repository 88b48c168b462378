"""The wait for a place, of a call that is handled in an event loop."""

import asyncio
from typing import Any

from accord.context import CallContext
from accord.policies.queue import Permit, Waiter
from accord.server import admission


class Admission(admission.Admission):
    """Admits the calls of one method."""

    __slots__ = ()

    def enter(self, call: CallContext) -> Permit | Waiter | None:
        """As `begin`; a place in the queue is for `wait`."""
        if self._limiter is None:
            return None
        return self._limiter.grant() or self.begin(call, _Bell())

    async def wait(self, call: CallContext, waiter: Waiter) -> Permit:
        """The permit of a call that has queued. Raises ResourceExhausted or DeadlineExceeded."""
        bell = waiter.notify
        assert isinstance(bell, _Bell)
        try:
            await bell.rung(self.patience(call))
        except BaseException:
            self.leave(waiter)  # the caller has gone
            raise
        return self.admitted(call, waiter)


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
