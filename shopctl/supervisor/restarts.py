"""Keeps a list of programs running until it is told to stop."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shopctl.supervisor.forks import ForkServer
from shopctl.supervisor.health import State
from shopctl.supervisor.process import Backoff, Child
from shopctl.supervisor.programs import Program

DRAIN_SECONDS: Final = 10.0
REAP_SECONDS: Final = 5.0
"""How long a process may take to vanish after SIGKILL."""


class Event(StrEnum):
    """What a notice is about."""

    DIED = "died"
    DRAINING = "draining"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should hear of.

    Attributes:
        event: what kind of thing happened.
        text: one sentence for a person.
        child: whom it is about; None when it is about all.
        exit_code: of a child that died, -signal if killed.
        delay: seconds until it is started again.
    """

    event: Event
    text: str
    child: Child | None = None
    exit_code: int | None = None
    delay: float | None = None


class Supervisor:
    """Starts programs, restarts those that die, drains them in the end.

    Must be made and run in the main thread: see `shopctl.supervisor.parent_death`.

    `on_lines` gets the name of a program and lines that it wrote, `on_notice` what the user should
    hear of; `on_change` is called after the state of a child has changed. A child may take
    `drain_seconds` to end after SIGTERM.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        on_lines: Callable[[str, list[bytes]], None],
        on_notice: Callable[[Notice], None],
        on_change: Callable[[], None] = lambda: None,
        drain_seconds: float = DRAIN_SECONDS,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("children must be started from the main thread")
        self.forks = fork_server_of(programs)
        self.children = [Child(program, backoff(), self.forks) for program in programs]
        self._on_lines = on_lines
        self._on_notice = on_notice
        self._on_change = on_change
        self._drain_seconds = drain_seconds
        self._stopping = asyncio.Event()
        self._killing = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Runs everything; returns after `stop`, when no child is left."""
        keepers = [asyncio.create_task(self._keep(child)) for child in self.children]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            # A keeper ends before `stop` only by a bug of ours: then nothing may stay behind.
            await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await self._drain()
            await asyncio.gather(*keepers)
        finally:
            self.kill()
            for task in (stopping, *keepers):
                task.cancel()
            if self.forks is not None:
                await self.forks.close()

    def stop(self) -> None:
        """Begins to drain."""
        self._stopping.set()

    def kill(self) -> None:
        """Ends all children at once."""
        self._killing = True
        self._stopping.set()
        for child in self.children:
            child.kill()

    @property
    def stopping(self) -> bool:
        """Whether `stop` or `kill` was called."""
        return self._stopping.is_set()

    async def serving(self, timeout: float) -> bool:
        """Waits for all children to serve; False when `timeout` seconds or `stop` came first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._stopping.is_set():
                    self._changed.clear()
                    if all(child.state is State.SERVING for child in self.children):
                        return True
                    await self._changed.wait()
        return False

    async def _keep(self, child: Child) -> None:
        while not self._stopping.is_set():
            code = await child.run_once(
                lambda lines: self._on_lines(child.program.name, lines),
                lambda: self._child_changed(child),
            )
            if self._stopping.is_set():
                break
            delay = child.delay_before_restart()
            why = f"refused ({child.reason})" if child.reason else describe_exit(code)
            text = f"{child.program.name} {why}; starting it again in {delay:.1f} s"
            self._on_notice(Notice(Event.DIED, text, child, code, delay))
            self._child_changed(child)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        child.state = State.STOPPED
        self._child_changed(child)

    def _child_changed(self, child: Child) -> None:
        if self._killing:
            child.kill()
        elif self._stopping.is_set() and child.state is State.STARTING:
            child.terminate()  # was being started when draining began
        self._changed.set()
        self._on_change()

    async def _drain(self) -> None:
        self._changed.set()
        self._on_notice(Notice(Event.DRAINING, "stopping; Ctrl-C again to stop at once"))
        for stage in sorted({child.program.drains for child in self.children}):
            children = [child for child in self.children if child.program.drains == stage]
            for child in children:
                child.terminate()
            for child in await _still_there(children, self._drain_seconds):
                text = f"{child.program.name} did not stop in {self._drain_seconds:g} s: killed"
                self._on_notice(Notice(Event.KILLED, text, child))
                child.kill()
            await _still_there(children, REAP_SECONDS)


def fork_server_of(programs: Sequence[Program]) -> ForkServer | None:
    """What those that are modules of Python are forked from: it knows what all of them know.

    None: nothing is, or what they are built on cannot be forked, as on macOS.
    """
    modules = [program for program in programs if program.module]
    if not modules or sys.platform != "linux":
        return None
    imports = dict.fromkeys(name for program in modules for name in program.imports)
    known = set.intersection(*(set(program.env.items()) for program in modules))
    return ForkServer(tuple(imports), dict(known))


async def _still_there(children: Sequence[Child], timeout: float) -> list[Child]:
    """Waits for the processes to end; returns those that have not after `timeout` seconds."""
    waits = [asyncio.create_task(child.gone.wait()) for child in children]
    if waits:
        await asyncio.wait(waits, timeout=timeout)
    for wait in waits:
        wait.cancel()
    return [child for child in children if not child.gone.is_set()]


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
