"""A real NATS server with JetStream for tests, which can be killed, restarted and robbed."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.js import JetStreamContext

from tests.support.ports import free_port
from tests.support.wait import until

_START = 10.0


class NatsServer:
    """One server process at a time, always on the same port and the same store."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port: int = free_port()
        self._options = options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it, whether it runs or not."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process, which runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        binary = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert binary is not None
        command = [binary, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._store)]
        command += self._options
        # In a thread it would be quicker for others, but tests have nothing else to do.
        self._process = subprocess.Popen(  # noqa: ASYNC220
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(_START):
            while not await self._answers():
                assert self._process.poll() is None, "nats-server has ended"
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut of the process would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        await self.start()

    def stop(self) -> None:
        """End it with everything written down (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Remove everything it has stored; it must not run."""
        assert self._process is None
        shutil.rmtree(self._store)

    def save(self) -> None:
        """Keep a copy of the store; it must not run."""
        assert self._process is None
        shutil.copytree(self._store, self._copy)

    def restore(self) -> None:
        """Put the copy back: everything stored since then is lost. It must not run."""
        assert self._process is None
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A client of the test's own."""
        client = await nats.connect(self.url)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    @property
    def _store(self) -> Path:
        return self._folder / "store"

    @property
    def _copy(self) -> Path:
        return self._folder / "copy"

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                return (await reader.readline()).startswith(b"INFO")
            finally:
                writer.close()
        return False


@asynccontextmanager
async def nats_server(*, started: bool = True) -> AsyncIterator[NatsServer]:
    """A server in a temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="nats-") as folder:
        server = NatsServer(Path(folder))
        try:
            if started:
                await server.start()
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def nats_cluster(nodes: int = 3) -> AsyncIterator[list[NatsServer]]:
    """Servers of one cluster that has a leader, each with a folder of its own."""
    ports = [free_port() for _ in range(nodes)]
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    with tempfile.TemporaryDirectory(prefix="nats-") as folder:
        servers = []
        for number, port in enumerate(ports, start=1):
            options = {
                "--name": f"n{number}",
                "--cluster_name": "tests",
                "--cluster": f"nats://127.0.0.1:{port}",
                "--routes": routes,
            }
            own = Path(folder, f"n{number}")
            servers.append(NatsServer(own, *(part for pair in options.items() for part in pair)))
        try:
            await asyncio.gather(*(server.start() for server in servers))
            async with servers[0].jetstream() as jetstream:
                await until(lambda: _leads(jetstream), "the cluster to have a leader")
            yield servers
        finally:
            for server in servers:
                server.kill()


async def _leads(jetstream: JetStreamContext) -> bool:
    """Whether the cluster takes requests."""
    try:
        await jetstream.account_info()
        await jetstream.streams_info()
    except (TimeoutError, nats.errors.Error):
        return False
    return True
