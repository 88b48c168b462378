"""The process that the services are forked from: it has imported what they are built on.

    python -m shopctl.supervisor.fork_server <control socket> <pid of the starter> <module>...

Each service would spend most of its start on imports, and hold its own copy of the same 50 MB of
code. Forked from here they share it, as Chromium's renderers and Android's apps do. It has one
thread, holds no lock and no connection, and gets no secret: the environment of a service is part of
what it is asked for. The forked process runs `python -m <module>` as if it had been started so.

Every request is a packet: JSON of `module` and `env`, with the descriptor of the output. Answers
are `{"started": pid}` or `{"error": text}`, in the order of the requests, and, whenever one has
ended, `{"ended": pid, "code": exit code, -signal if killed}`.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, TypedDict

from setproctitle import getproctitle, setproctitle

from shopctl.supervisor import parent_death

LARGEST: Final = 128 * 1024
"""Bytes of a packet."""


class Request(TypedDict):
    """What is asked for."""

    module: str
    env: dict[str, str]


_ENDS: Final = {signal.SIGCHLD}


def serve(control: socket.socket) -> str | None:
    """Forks until the other end is closed. In a forked process, returns the module to be run."""

    def reap(*_: object) -> None:  # the number and the frame
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _tell(control, ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    signal.signal(signal.SIGCHLD, reap)
    ourselves = os.getpid()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, LARGEST, 1)
        if not packet:
            return None
        # That it has ended is not to be told before that it has started.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            pid = os.fork()
            if pid == 0:
                control.close()
                return _become(json.loads(packet), descriptors[0], ourselves)
            with contextlib.suppress(OSError):  # it was faster
                os.setpgid(pid, pid)
            _tell(control, started=pid)
        except OSError as error:
            _tell(control, error=str(error))
        finally:
            os.close(descriptors[0])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)


def _become(request: Request, output: int, starter: int) -> str:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    parent_death.tie(starter)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    setproctitle(f"{sys.executable} -m {request['module']}")
    return request["module"]


def _tell(control: socket.socket, **what: object) -> None:
    with contextlib.suppress(OSError):  # who asked has gone, and we will hear of it
        control.send(json.dumps(what).encode())


def main(control: int, modules: Sequence[str]) -> None:
    """Import, serve, and become what was asked for."""
    getproctitle()  # finds where the title lies, which it cannot once the environment has changed
    for name in modules:
        # Whoever cannot be imported says so in the process that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write to every object, and so copy its page
    module = serve(socket.socket(fileno=control))
    if module is not None:
        sys.argv = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    parent_death.tie(int(sys.argv[2]))
    main(int(sys.argv[1]), sys.argv[3:])
