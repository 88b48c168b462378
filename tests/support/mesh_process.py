"""The whole shop as real processes: `shopctl up`, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from services import topology
from shopctl.supervisor import parent_death, state
from shopctl.supervisor.health import State
from shopctl.supervisor.state import ProcessRecord

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 40.0
PAUSE: Final = 0.02

SHOPCTL: Final = (sys.executable, "-m", "shopctl")
"""The command line, to be followed by arguments."""


class MeshProcess:
    """A running shop.

    Attributes:
        home: its state folder.
        offset: its port offset.
        output: what `shopctl up` printed.
    """

    def __init__(self, home: Path, offset: int, output: Path, process: subprocess.Popen[bytes]):
        self.home = home
        self.offset = offset
        self.output = output
        self._process = process

    def records(self) -> Mapping[str, ProcessRecord]:
        """Name -> what the supervisor knows about the process."""
        run = state.read_run(self.home)
        return {record.name: record for record in run.processes} if run else {}

    def wait_until_serving(self, seconds: float = READY_SECONDS) -> None:
        """Waits until everything serves.

        Raises:
            AssertionError: it does not in time, or the supervisor has ended.
        """
        deadline = time.monotonic() + seconds
        while True:
            records = [record for record in self.records().values() if record.managed]
            if records and all(record.state == State.SERVING for record in records):
                return
            assert self._process.poll() is None, f"shopctl up ended:\n{self.output.read_text()}"
            assert time.monotonic() < deadline, f"not serving:\n{self.output.read_text()}"
            time.sleep(PAUSE)

    def kill(self, name: str) -> int:
        """`kill -9` of one process; returns its pid. Waits until there is one to be killed."""
        deadline = time.monotonic() + READY_SECONDS
        while (pid := self.records()[name].pid) is None:
            assert time.monotonic() < deadline, f"{name} does not run"
            time.sleep(PAUSE)
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self) -> str:
        """What the services said that was more than information, for messages of tests."""
        names = sorted(path.stem for path in (self.home / "logs").glob("*.log"))
        lines = [line for name in names for line in self.logged(name) if line["level"] != "info"]
        return "\n".join(map(json.dumps, lines[-50:]))

    def logged(self, name: str) -> list[dict[str, Any]]:
        """What a service said; a line that was torn by a fault is left out."""
        path = self.home / "logs" / f"{name}.log"
        found = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            with suppress(json.JSONDecodeError):
                found += [json.loads(line)] if line.startswith('{"') else []
        return found

    def stop(self) -> None:
        """Stops it as Ctrl-C does; kills it when it does not end."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def inherited() -> dict[str, str]:
    """The environment without what would tell a shop where it is."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MESH_", "NATS_", "DATABASE_", "LOG_")) or name == "MESH_INSECURE"
    }


@contextmanager
def running_mesh(
    home: Path,
    offset: int,
    database_url: str | None = None,
    *,
    left_out: Collection[str] = tuple(topology.GATEWAYS),
    environment: Mapping[str, str] | None = None,
) -> Iterator[MeshProcess]:
    """Starts the shop, waits until it serves, and stops it at the end of the block.

    Args:
        home: state folder, made if it is not there; its parent exists.
        offset: port offset at which all ports are free.
        database_url: a PostgreSQL server for all services; None for a file per service.
        left_out: what is not started: edge and console, unless a test is about them.
        environment: beyond what is inherited.
    """
    variables = {**inherited(), **(environment or {})}
    output = home.with_suffix(".out")
    command = [*SHOPCTL, "up", "--quiet", "--home", str(home), "--port-offset", str(offset)]
    for name in left_out:
        command += ["--except", name]
    if database_url is not None:
        variables["DATABASE_URL"] = database_url
    with output.open("wb") as file:
        process = subprocess.Popen(
            # A test run that is killed must not leave a shop behind.
            [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    mesh = MeshProcess(home, offset, output, process)
    try:
        mesh.wait_until_serving()
        yield mesh
    finally:
        mesh.stop()
