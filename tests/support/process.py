"""One service as a process of its own, to be killed."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from accord_runtime.settings import Settings
from shopctl.supervisor import parent_death

READY_SECONDS: Final = 60.0

OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    *((f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")),
]
"""Of a channel to a server that may not be there yet: gRPC itself would pause for longer and longer
before it looks again."""


class ServiceProcess:
    """`python -m services.<name>`, in the lives that a test gives it."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a life, and wait until it serves."""
        environment = {
            **os.environ,
            "MESH_HOME": str(self._settings.home),
            "MESH_PORT_OFFSET": str(self._settings.port_offset),
            "DATABASE_URL": self._settings.database_url,
        }
        command = [sys.executable, "-m", f"services.{self._settings.name}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(READY_SECONDS)

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with grpc.insecure_channel(self._settings.address, OPTIONS) as channel:
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
                assert time.monotonic() < deadline, self._log.read_text()[-2000:]
                time.sleep(0.02)
