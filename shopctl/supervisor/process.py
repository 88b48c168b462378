"""One supervised process: its output, its back-off, and its end."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shopctl.supervisor import parent_death
from shopctl.supervisor.forks import Forked, ForkServer
from shopctl.supervisor.health import State
from shopctl.supervisor.programs import Program

TAIL_LINES: Final = 8
CHECK_TIMEOUT: Final = 2.0
WATCH: Final = 4.0
"""Seconds between two looks at a program that is watched while it serves."""
REFUSES: Final = 5.0
"""Seconds of answers that it does not serve after which such a program is ended."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
CHUNK: Final = 65536
MAX_LINE: Final = 256 * 1024

_TIED: Final = (sys.executable, "-I", "-S", str(Path(parent_death.__file__)))
"""What runs a command so that it ends when we do."""


@dataclass(slots=True)
class Backoff:
    """Exponential back-off, in seconds: `first` doubling to `ceiling`.

    A child that has been healthy for `forgive_after` seconds starts again at `first`. There is no
    jitter: the children of one machine do not compete for anything when they restart.
    """

    first: float = 0.2
    ceiling: float = 10.0
    forgive_after: float = 30.0
    _next: float = 0.0

    def next_delay(self, healthy_for: float) -> float:
        """Seconds to wait now, given how long the child had been healthy before it died."""
        if healthy_for >= self.forgive_after or not self._next:
            self._next = self.first
        delay = self._next
        self._next = min(self._next * 2, self.ceiling)
        return delay


class Child:
    """A program and the process that runs it, if one does.

    Attributes:
        program: what is run.
        state: what is known about it.
        pid: None while no process runs.
        restarts: how often it was started again.
        started: Unix time in seconds of the latest start.
        tail: the last lines that the latest process wrote.
        reason: why it does not serve, as far as it said; stays until it serves again.
        gone: set while no process runs.
    """

    def __init__(self, program: Program, backoff: Backoff, forks: ForkServer | None) -> None:
        self.program = program
        self._forks = forks
        self.state = State.STARTING
        self.pid: int | None = None
        self.restarts = 0
        self.started: float | None = None
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.reason = ""
        self.gone = asyncio.Event()
        self.gone.set()
        self._backoff = backoff
        self._serving_since: float | None = None

    async def run_once(
        self, on_lines: Callable[[list[bytes]], None], on_change: Callable[[], None]
    ) -> int:
        """Starts the process, waits for its end and returns its exit code, -signal if killed.

        `on_lines` gets the lines that the process writes; `on_change` is called whenever an
        attribute has changed.

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
                process = await self._start(output.write_end)
            except OSError as error:  # out of processes, memory or descriptors
                keep([f"cannot start: {error}".encode()])
                return parent_death.CANNOT_RUN
            finally:
                output.close_write_end()
            self.pid, self.started = process.pid, time.time()
            on_change()
            watching = asyncio.create_task(self._watch(on_change))
            try:
                return await process.wait()
            finally:
                watching.cancel()
                self.kill()  # whatever it started itself
                self.pid = None
        finally:
            output.finish()
            self.gone.set()

    async def _start(self, output: int) -> asyncio.subprocess.Process | Forked:
        program = self.program
        if self._forks is not None and program.module:
            return await self._forks.start(program.module, program.env, output)
        return await asyncio.create_subprocess_exec(
            *(*_TIED, str(os.getpid()), *program.argv),
            env=dict(program.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours; we tell the children
        )

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

    def reload(self) -> None:
        """Asks the process to read its configuration again."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGHUP)

    def kill(self) -> None:
        """Ends the process, and those that it started, at once."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _watch(self, on_change: Callable[[], None]) -> None:
        pause, well = FIRST_PAUSE, time.monotonic()
        while True:
            answer = await self.program.health(self.program.address, CHECK_TIMEOUT)
            state, self.reason = answer.state, answer.reason
            if self._serving_since is None and state is State.SERVING:
                self._serving_since = time.monotonic()
            if self._serving_since is not None:
                pause = WATCH
                if state is not self.state:
                    self.state = state
                    on_change()
                if not self.program.watched:
                    return
            if state is not State.NOT_SERVING:
                well = time.monotonic()
            elif self.program.watched and time.monotonic() - well > REFUSES:
                self.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE)


class OutputPipe:
    """Calls `on_lines` with the whole lines that come through a pipe.

    It ends with the child, not with the pipe: something that the child started may hold the
    other end open for ever.
    """

    def __init__(self, on_lines: Callable[[list[bytes]], None]) -> None:
        self._on_lines = on_lines
        self._splitter = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._readable)

    def close_write_end(self) -> None:
        """To be called once the child has it."""
        os.close(self.write_end)

    def finish(self) -> None:
        """Delivers what is left in the pipe and closes it."""
        # Bounded, should a survivor keep on writing.
        for _ in range(64):
            if not self._readable():
                break
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        if lines := self._splitter.finish():
            self._on_lines(lines)

    def _readable(self) -> bool:
        try:
            data = os.read(self._read_end, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._read_end)
        elif lines := self._splitter.feed(data):
            self._on_lines(lines)
        return bool(data)


class LineSplitter:
    """Collects bytes and returns whole lines, without their newline.

    A line longer than `max_line` bytes is returned in pieces, so that a child that writes no
    newline cannot make us collect without end.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what was read and returns the lines that are complete now."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > self._max_line:
            lines.append(rest[: self._max_line])
            rest = rest[self._max_line :]
        self._rest = rest
        return [line.removesuffix(b"\r") for line in lines]

    def finish(self) -> list[bytes]:
        """Returns the last line if it did not end in a newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
