"""Makes calls when they are due, whatever became of those before."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from shopctl.load.result import OK, Result, code_of
from shopctl.load.schedule import Arrival

Answered = Callable[[], None]
Call = Callable[[Answered], Awaitable[None]]
"""Makes a call, and raises if it fails. It may say by its argument that the answer is there before
the call has ended, as the first message of a stream."""

GRACE: Final = 10.0
"""Seconds that open calls have for an answer when no more are made."""

CUT_OFF: Final = "CUT_OFF"
"""Code of a call that had no answer when these were over."""


class Runner:
    """One run. What goes on after its answer, as a stream does, ends with it.

    Args:
        calls: kind of call -> how it is made.
        most: calls open at a time; what is due beyond that is dropped, and counted.
    """

    def __init__(self, calls: Mapping[str, Call], most: int) -> None:
        self.result = Result.of(calls)
        self._calls = calls
        self._most = most
        self._open: set[asyncio.Task[None]] = set()
        self._answered: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    @property
    def open(self) -> int:
        """Calls that are open."""
        return len(self._open)

    def stop(self) -> None:
        """Make no more calls; when told a second time, do not wait for the open ones either."""
        if self.result.interrupted:
            self._cut_off()
        self.result.interrupted = True
        self._stopped.set()

    async def run(self, schedule: Iterable[Arrival]) -> Result:
        """Make the calls of a schedule, from now on, and wait for their answers."""
        clock = asyncio.get_running_loop().time
        start = clock()
        for arrival in schedule:
            due = start + arrival.at
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):  # lets answers in, even when it is over
                    await self._stopped.wait()
            if self._stopped.is_set():
                break
            if len(self._open) >= self._most:
                self.result.dropped += 1
            else:
                self.result.made(clock() - due)
                task = asyncio.create_task(self._make(arrival.kind, due))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        self.result.seconds = clock() - start
        if waiting := self._open - self._answered:
            await asyncio.wait(waiting, timeout=GRACE)
        if self._open:
            self._cut_off()
            await asyncio.wait(self._open)
        return self.result

    def _cut_off(self) -> None:
        for task in self._open:
            task.cancel()

    async def _make(self, kind: str, due: float) -> None:
        clock = asyncio.get_running_loop().time
        task, at = asyncio.current_task(), 0.0
        assert task is not None

        def answer() -> None:
            nonlocal at
            at = at or clock()
            self._answered.add(task)

        code = OK
        try:
            await self._calls[kind](answer)
        except asyncio.CancelledError:
            code = OK if at else CUT_OFF
        except Exception as error:
            code = code_of(error)
        answer()
        self._answered.discard(task)
        self.result.kinds[kind].add(code, at - due)
