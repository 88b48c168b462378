"""The shop as real processes, and what is done to them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from accord_runtime import state_folder
from services import topology
from shopctl.supervisor import broker, parent_death, programs
from shopctl.supervisor.programs import Program
from tests.support.mesh_process import SHOPCTL, MeshProcess, inherited, running_mesh
from tests.support.ports import free_offset
from tests.support.wait import until

COMMAND_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0

ANSWER: Final = 2.0
"""Seconds that a service may take to say how it is."""


async def health_of(name: str, address: str) -> str:
    """What a service says to `grpc.health.v1`, or the code of the failure; the broker greets."""
    if name == topology.BROKER:
        with suppress(OSError):
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            greeting = await reader.read(5)
            writer.close()
            return "SERVING" if greeting == b"INFO " else "NOT_SERVING"
        return "UNAVAILABLE"
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await check(HealthCheckRequest(), timeout=ANSWER)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return HealthCheckResponse.ServingStatus.Name(answer.status)


class Part:
    """One process of the shop that the test runs itself (`shopctl up --except NAME`)."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    def launch(self) -> None:
        """Begin a life, and do not wait."""
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())),
                    *self.program.argv,
                ],
                env=dict(self.program.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def start(self) -> None:
        """Begin a life, and wait until it serves."""
        self.launch()

        async def serves() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.program.name} ended: {self._log}"
            return await health_of(self.program.name, self.program.address) == "SERVING"

        await until(serves, f"{self.program.name} serves", seconds=60.0)

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM; it ends by itself."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        self._process = None


class Shop:
    """A running shop.

    Attributes:
        home: its state folder.
        offset: its port offset.
        parts: those of its processes that the test runs itself, by name.
        programs: what all of them run, by name.
    """

    def __init__(
        self, mesh: MeshProcess, parts: Mapping[str, Part], programs: Mapping[str, Program]
    ) -> None:
        self.home = mesh.home
        self.offset = mesh.offset
        self.parts = parts
        self.programs = programs
        self._mesh = mesh

    def pid(self, name: str) -> int:
        """The process that runs now."""
        found = self.parts[name].pid if name in self.parts else self._mesh.records()[name].pid
        assert found is not None, f"{name} does not run"
        return found

    def restarts(self, name: str) -> int:
        """How often the supervisor has started it again."""
        return self._mesh.records()[name].restarts

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP; SIGCONT at the end of the block, if it is still there."""
        process = os.pidfd_open(self.pid(name))
        try:
            signal.pidfd_send_signal(process, signal.SIGSTOP)
            yield
        finally:
            with suppress(ProcessLookupError):  # the supervisor may have ended it
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)

    async def command(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """A command of `shopctl` with `--json`: its exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(*SHOPCTL, *words, "--json", "--home", str(self.home)),
            env=inherited(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                printed, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        assert process.returncode is not None
        return process.returncode, [json.loads(line) for line in printed.splitlines()]

    async def listed(self, *words: str) -> list[dict[str, Any]]:
        """What a command printed that must not fail."""
        code, rows = await self.command(*words)
        assert code == 0, f"shopctl {' '.join(words)}: exit code {code}"
        return rows

    def logged(self, name: str, level: str) -> list[str]:
        """What a process said at a level."""
        return [line["msg"] for line in self._mesh.logged(name) if line["level"] == level]

    def story(self) -> str:
        """What the processes said that was more than information, for messages of tests."""
        return self._mesh.logs()

    @property
    def mails(self) -> Path:
        """The spool of the sandbox's mail server: one file per Message-ID."""
        return self.home / "mails"

    def database(self, name: str) -> Path:
        """The SQLite file of a service."""
        return self.home / f"{name}.db"

    def addresses(self) -> Mapping[str, str]:
        """Name -> `host:port` of every service."""
        return topology.addresses(self.offset).services


@asynccontextmanager
async def running_shop(
    home: Path,
    *,
    by_hand: Collection[str] = (),
    database_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Shop]:
    """`shopctl up` in `home`, and what is run `by_hand` beside it; all of it serves."""
    offset = free_offset()
    state_folder.prepare(home)
    selection = programs.select(
        home,
        offset=offset,
        left_out=tuple(topology.GATEWAYS),
        database_url=database_url or "",
        nats_url="",
        inherited={**inherited(), **(environment or {})},
        insecure=True,
    )
    parts = {
        program.name: Part(program, home / "logs" / f"{program.name}.log")
        for program in selection.programs
        if program.name in by_hand
    }
    with ExitStack() as stack:
        for part in parts.values():
            stack.callback(part.kill)
        if topology.BROKER in parts:
            broker.write_config(home, offset)
            await parts[topology.BROKER].start()
        mesh = stack.enter_context(
            running_mesh(
                home,
                offset,
                database_url,
                left_out=(*by_hand, *topology.GATEWAYS),
                environment=environment or {},
            )
        )
        for name, part in parts.items():
            if name != topology.BROKER:
                await part.start()
        yield Shop(mesh, parts, {program.name: program for program in selection.programs})
