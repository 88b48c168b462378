"""Processes forked from one that has imported what they need: our end of `fork_server`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from shopctl.supervisor import fork_server

ANSWER_SECONDS: Final = 30.0
"""How long a fork may take; the first one waits for the imports."""


class Forked:
    """A forked process.

    Attributes:
        pid: of it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Its exit code, -signal if killed."""
        return await asyncio.shield(self.code)


class ForkServer:
    """Starts the process that forks when it is first needed, and again when it has gone.

    The kernel ends what was forked from it together with it.

    Attributes:
        pid: of the process; None while there is none.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        """`modules`: what it imports; `environment`: its own, which others can read."""
        self.pid: int | None = None
        self._modules = modules
        self._environment = environment
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._asked: deque[asyncio.Future[Forked]] = deque()
        self._running: dict[int, Forked] = {}
        self._starting = asyncio.Lock()

    async def start(self, module: str, env: Mapping[str, str], output: int) -> Forked:
        """Runs `python -m module`, in a process group of its own, its output to a descriptor.

        Raises:
            OSError: it cannot be started.
        """
        async with self._starting:
            control = self._control or await self._launch()
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        request = fork_server.Request(module=module, env=dict(env))
        packet = json.dumps(request).encode()
        socket.send_fds(control, [packet], [output])
        self._asked.append(answer)
        return await asyncio.wait_for(answer, ANSWER_SECONDS)

    async def close(self) -> None:
        """Ends it, and what is left of what was forked from it."""
        if self._control is not None:
            self._lost()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _launch(self) -> socket.socket:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", fork_server.__name__),
                *(str(theirs.fileno()), str(os.getpid()), *self._modules),
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is ours
            )
        control.setblocking(False)
        self.pid, self._control = self._process.pid, control
        asyncio.get_running_loop().add_reader(control, self._readable, control)
        return control

    def _readable(self, control: socket.socket) -> None:
        try:
            packet = control.recv(fork_server.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._lost()
            return
        said = json.loads(packet)
        if "ended" in said:
            if (forked := self._running.pop(said["ended"], None)) is not None:
                forked.code.set_result(said["code"])
            return
        answer = self._asked.popleft()
        if "error" in said:
            if not answer.done():
                answer.set_exception(OSError(said["error"]))
        elif answer.done():  # nobody waits for it any more
            with contextlib.suppress(ProcessLookupError):
                os.kill(said["started"], signal.SIGKILL)
        else:
            forked = self._running[said["started"]] = Forked(said["started"])
            answer.set_result(forked)

    def _lost(self) -> None:
        assert self._control is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = self.pid = None
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(OSError("the process that it is forked from has gone"))
        self._asked.clear()
        for forked in self._running.values():
            forked.code.set_result(-signal.SIGKILL)
        self._running.clear()
