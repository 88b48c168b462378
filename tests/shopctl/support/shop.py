"""Runs `shopctl` as a user does, over tiny real services in place of the shop's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import topology
from tests.shopctl.support import tiny
from tests.shopctl.support.processes import descendants, runs
from tests.support.wait import DEADLINE, until_sync

SHOPCTL = (str(Path(sys.executable).with_name("shopctl")),)

_MAIN = """\
import os, runpy, sys
port = {port} + int(os.environ["MESH_PORT_OFFSET"])
options = [*{options!r}, *os.environ.get("MESH_TINY_OPTIONS", "").split()]
sys.argv = [{tiny!r}, "--port", str(port), *options]
runpy.run_path({tiny!r}, run_name="__main__")
"""


@dataclass
class _Gone:
    pids: set[int]

    def __call__(self) -> bool:
        return not any(map(runs, self.pids))


class Shop:
    """A working folder, and a shop in it.

    With `tiny_services` there are tiny services in the folder, and `python -m services.orders`
    finds these first, because it is run there; `shopctl` itself is a script and uses the real
    packages.
    """

    def __init__(self, folder: Path, offset: int, *, tiny_services: bool) -> None:
        self.folder = folder
        self.home = folder / ".mesh"
        self.offset = offset
        self.started: list[subprocess.Popen[bytes]] = []
        if tiny_services:
            self._write_services()

    def _write_services(self) -> None:
        for name, port in {**topology.SERVICES, **topology.GATEWAYS}.items():
            package = self.folder / "services" / name
            package.mkdir(parents=True)
            options = ["--http"] if name in topology.GATEWAYS else []
            text = _MAIN.format(port=port, tiny=tiny.__file__, options=options)
            (package / "__main__.py").write_text(text)
        (self.folder / "services" / "__init__.py").touch()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MESH_", "NATS_", "DATABASE_", "TINY_"))
            or name == "MESH_INSECURE"
        }
        return {**kept, "MESH_PORT_OFFSET": str(self.offset), **(extra or {})}

    def run(
        self, *arguments: str, answer: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [*SHOPCTL, *arguments],
            cwd=self.folder,
            env=self.environment(env),
            input=answer,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts `shopctl up`; output goes to the file `output`, or to a terminal."""
        output = self.folder / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*SHOPCTL, "up", *arguments],
                cwd=self.folder,
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=file if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What `up --json` said."""
        lines = [line for line in self.output().splitlines(keepends=True) if line.endswith("\n")]
        events = [json.loads(line) for line in lines]
        return [event for event in events if event.get("event") == name]

    def start_and_wait(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts `shopctl up --json` and waits until everything serves."""
        process = self.start("--json", *arguments, env=env)
        until_sync(
            lambda: process.poll() is not None or self.events("ready"), "the shop to be ready"
        )
        assert process.poll() is None, self.output()
        return process

    def row(self, name: str) -> dict[str, Any]:
        """What `status` says of one process."""
        report = json.loads(self.run("status", "--json").stdout)
        rows: dict[str, dict[str, Any]] = {row["name"]: row for row in report["processes"]}
        return rows[name]

    def clean_up(self) -> None:
        """Ends what a test left running."""
        for process in self.started:
            left = descendants(process.pid)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
            until_sync(_Gone(left), "processes to vanish")
