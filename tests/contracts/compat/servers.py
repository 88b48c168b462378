"""The shop as processes, each of any version, on one set of ports and databases."""

import asyncio
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from services import topology
from tests.contracts.compat.version import Version
from tests.support.nats import NatsServer
from tests.support.ports import free_offset
from tests.support.shop import ALL

PATIENCE: Final = 90.0
"""Seconds for a process to start or to end."""

_IMPATIENT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
)
"""Else gRPC would wait for a second or more until it looks again for a process that starts."""


class Servers:
    """Services that can be stopped and started again, with the code of another version.

    Attributes:
        home: the folder of their state.
        targets: name -> address, also of services that do not run.
    """

    def __init__(self, home: Path, broker: str) -> None:
        self.home = home
        self._offset = free_offset()
        self._settings = {
            "MESH_HOME": str(home),
            "MESH_INSECURE": "1",  # released servers have no certificates
            "MESH_PORT_OFFSET": str(self._offset),
            "NATS_URL": broker,
        }
        self.targets = {name: topology.address(name, self._offset) for name in ALL}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, version: Version, *names: str) -> None:
        """Start services (all by default) that the version has, and wait until they serve."""
        names = tuple(name for name in version.services() if not names or name in names)
        for name in names:
            with self._log(name).open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    version.command("-m", f"services.{name}"),
                    cwd=self.home,
                    env=version.environment(self._settings),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        for name in names:
            self._wait_until_serving(name)

    @property
    def running(self) -> Sequence[str]:
        """The services that run."""
        return list(self._processes)

    def kill(self, *names: str) -> None:
        """`kill -9` of services (all by default) that run."""
        killed = self._take(names)
        for process in killed:
            process.kill()
        for process in killed:
            process.wait()

    def stop(self, *names: str) -> None:
        """Stop services (all by default) that run, gracefully."""
        stopping = self._take(names)
        for process in stopping:
            process.terminate()
        for process in stopping:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _take(self, names: Sequence[str]) -> list[subprocess.Popen[bytes]]:
        taken = [name for name in self.running if not names or name in names]
        return [self._processes.pop(name) for name in taken]

    def execute(self, name: str, sql: str, *values: object) -> int:
        """Change the database of a service behind its back; returns how many rows."""
        database = sqlite3.connect(self.home / f"{name}.db", timeout=10)
        try:
            with database:
                return database.execute(sql, values).rowcount
        finally:
            database.close()

    def log(self, name: str) -> str:
        """What a service has said at the end."""
        return self._log(name).read_text(errors="replace")[-3000:]

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def _wait_until_serving(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE
        with grpc.insecure_channel(self.targets[name], options=_IMPATIENT) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            while True:
                try:
                    if check(health_pb2.HealthCheckRequest(), timeout=1).status == 1:
                        return
                except grpc.RpcError:
                    pass
                assert self._processes[name].poll() is None, self.log(name)
                assert time.monotonic() < deadline, self.log(name)
                time.sleep(0.02)


@contextmanager
def servers(home: Path, version: Version) -> Iterator[Servers]:
    """A broker and all services of one version, for as long as the block lasts."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "nats").mkdir()
    broker = NatsServer(home / "nats")
    shop = Servers(home, broker.url)
    try:
        asyncio.run(broker.start())
        shop.start(version)
        yield shop
    finally:
        shop.kill()
        broker.kill()
