"""One supervised process."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shopctl import leash
from shopctl.backoff import Backoff
from shopctl.health import State
from shopctl.output import OutputPipe
from shopctl.program import Program

TAIL_LINES: Final = 8
CHECK_TIMEOUT: Final = 2.0
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5

_LEASH: Final = (sys.executable, "-I", "-S", str(Path(leash.__file__)))


class Child:
    """A program and the process that runs it, if one does.

    Attributes:
        program: what is run.
        state: what is known about it.
        pid: None while no process runs.
        restarts: how often it was started again.
        started: Unix time in seconds of the latest start.
        tail: the last lines that the latest process wrote.
        gone: set while no process runs.
    """

    def __init__(self, program: Program, backoff: Backoff) -> None:
        self.program = program
        self.state = State.STARTING
        self.pid: int | None = None
        self.restarts = 0
        self.started: float | None = None
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.gone = asyncio.Event()
        self.gone.set()
        self._backoff = backoff
        self._serving_since: float | None = None

    async def run_once(
        self, on_lines: Callable[[list[bytes]], None], on_change: Callable[[], None]
    ) -> int:
        """Starts the process, waits for its end and returns its exit code, -signal if killed.

        Args:
            on_lines: gets the lines that the process writes.
            on_change: called whenever an attribute has changed.

        Returns 127 when the process cannot be started; the reason goes to `on_lines`.
        """

        def keep(lines: list[bytes]) -> None:
            self.tail.extend(lines[-TAIL_LINES:])
            on_lines(lines)

        self.state = State.STARTING
        self._serving_since = None
        self.tail.clear()
        output = OutputPipe(keep)
        self.gone.clear()
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(*_LEASH, str(os.getpid()), *self.program.argv),
                    env=dict(self.program.env),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output.write_end,
                    stderr=output.write_end,
                    start_new_session=True,  # Ctrl-C is ours; we tell the children
                )
            except OSError as error:  # out of processes, memory or descriptors
                keep([f"cannot start: {error}".encode()])
                return leash.CANNOT_RUN
            finally:
                output.close_write_end()
            self.pid, self.started = process.pid, time.time()
            on_change()
            watching = asyncio.create_task(self._await_serving(on_change))
            try:
                return await process.wait()
            finally:
                watching.cancel()
                self.kill()  # whatever it started itself
                self.pid = None
        finally:
            output.finish()
            self.gone.set()

    def delay_before_restart(self) -> float:
        """Seconds to wait before it is started again; counts the restart."""
        since = self._serving_since
        healthy_for = 0.0 if since is None else time.monotonic() - since
        self.restarts += 1
        self.state = State.RESTARTING
        return self._backoff.next_delay(healthy_for)

    def terminate(self) -> None:
        """Asks the process to drain and end."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process, and those that it started, at once."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _await_serving(self, on_change: Callable[[], None]) -> None:
        pause = FIRST_PAUSE
        while await self.program.health.check(CHECK_TIMEOUT) is not State.SERVING:
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE)
        self.state = State.SERVING
        self._serving_since = time.monotonic()
        on_change()
