"""Asks one process whether it serves, and how much memory it takes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from services.topology import BROKER, CONSOLE, EDGE, HEALTH_DISTANCE, METRICS_DISTANCE
from shopctl.errors import CommandError
from shopctl.identity import credentials, identity_of


class State(StrEnum):
    """What a health check found out, or what the supervisor knows about a child."""

    STARTING = "starting"
    SERVING = "serving"
    NOT_SERVING = "not serving"
    UNREACHABLE = "unreachable"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Answer(NamedTuple):
    """SERVING, NOT_SERVING or UNREACHABLE, and what is wrong as far as it says."""

    state: State
    reason: str = ""
    waiting: int = 0
    """Events of a service that the broker has not acknowledged."""


Check = Callable[[str, float], Awaitable[Answer]]
"""Asks whoever listens at an address, within a time in seconds, if it serves; raises nothing."""


def check_of(name: str, home: Path | None = None, *, whole: bool = True) -> Check:
    """The `Check` of a program of the shop in `home`; None: it goes without TLS.

    `whole`: nothing was left out, which one that is asked by HTTP might need.
    """
    http = partial(check_http, path="/healthz" if whole else "/livez")
    special: dict[str, Check] = {BROKER: check_broker, EDGE: http, CONSOLE: http}
    return special.get(name) or partial(check_grpc, home=home)


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def listens(address: str, timeout: float = 1.0) -> bool:
    """Whether anybody takes connections there."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await _open(address)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return True


async def check_grpc(address: str, timeout: float, home: Path | None = None) -> Answer:
    """A `Check` by `grpc.health.v1.Health/Check` of the server as a whole (service name "").

    What it says beyond that, it says by `accord.ops.v1.HealthService`, if it serves that, to the
    operator of the shop in `home`; None: without TLS, and all on one port.
    """
    # A refused connection is cheap to notice here; a gRPC channel would go into back-off for a
    # second. It also spares the import of gRPC until it is needed.
    if not await listens(address, timeout):
        return Answer(State.UNREACHABLE)

    import grpc.aio
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from accord.ops.v1.health_pb2 import GetHealthRequest, GetHealthResponse
    from accord.ops.v1.health_pb2_grpc import HealthServiceStub

    # A proxy from the environment has no business between us and loopback.
    options = [("grpc.enable_http_proxy", 0)]
    probed = distant(address, HEALTH_DISTANCE) if home else address
    async with grpc.aio.insecure_channel(probed, options) as channel:
        stub: Any = HealthStub(channel)
        try:
            answer = await stub.Check(HealthCheckRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return Answer(State.UNREACHABLE if error.code() in unreachable else State.NOT_SERVING)
    said, unsaid = GetHealthResponse(), ""
    try:
        identity = identity_of(home) if home else None
        # Channels have no way to go without TLS but one of their own.
        opened = (
            grpc.aio.secure_channel(address, credentials(identity), options)
            if identity
            else grpc.aio.insecure_channel(address, options)
        )
        async with opened as channel:
            said = await HealthServiceStub(channel).GetHealth(GetHealthRequest(), timeout=timeout)
    except CommandError as error:
        unsaid = str(error)
    except grpc.aio.AioRpcError:
        pass
    serving = answer.status == HealthCheckResponse.SERVING
    wrong = (said.database_problem, said.broker_problem, said.identity_problem, said.route_problem)
    reason = "; ".join(filter(None, (*wrong, unsaid)))
    state = State.SERVING if serving else State.NOT_SERVING
    return Answer(state, reason, said.waiting_events)


async def check_broker(address: str, timeout: float) -> Answer:
    """A `Check` of a NATS server: it takes connections, and every stream can be written to.

    After a failed write (a full disk) a stream refuses all that follow until the server is started
    again (nats-io/nats-server#1987), while others go on: so the server is asked for the health of
    all of them. One that was not started by us may have no port for that, but it greets.
    """
    try:
        async with asyncio.timeout(timeout):
            try:
                answer = await _exchange(broker_health(address), b"GET /healthz HTTP/1.0\r\n\r\n")
            except ConnectionRefusedError:
                if await _exchange(address, b"", 5) != b"INFO ":
                    return Answer(State.NOT_SERVING, "what listens there is no NATS server")
                return Answer(State.SERVING)
    except (OSError, TimeoutError):
        return Answer(State.UNREACHABLE)
    try:
        said = {"error": "", **json.loads(answer.partition(b"\r\n\r\n")[2])}
        return Answer(State.SERVING if said["status"] == "ok" else State.NOT_SERVING, said["error"])
    except (ValueError, LookupError, TypeError):
        return Answer(State.NOT_SERVING, "its health cannot be read")


async def check_http(address: str, timeout: float, path: str = "/healthz") -> Answer:
    """A `Check` by `GET`: 200, or what the answer's JSON says in `detail`."""
    try:
        async with asyncio.timeout(timeout):
            request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            head, _, body = (await _exchange(address, request.encode())).partition(b"\r\n\r\n")
    except (OSError, TimeoutError):
        return Answer(State.UNREACHABLE)
    if head.startswith(b"HTTP/1.1 200 "):
        return Answer(State.SERVING)
    try:
        return Answer(State.NOT_SERVING, str(json.loads(body)["detail"]))
    except (ValueError, LookupError, TypeError):
        return Answer(State.NOT_SERVING, "its health cannot be read")


def broker_health(address: str) -> str:
    """Where our broker answers for its health, given where it takes connections."""
    return distant(address, METRICS_DISTANCE)


def distant(address: str, distance: int) -> str:
    """The address so many ports above another."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + distance}"


async def _exchange(address: str, request: bytes, most: int = -1) -> bytes:
    """Send a request and read up to `most` bytes of its answer, or all of it."""
    reader, writer = await _open(address)
    try:
        writer.write(request)
        return await reader.read(most)
    finally:
        writer.close()


def proportional_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Memory of a process in bytes: its proportional set size (PSS).

    PSS shares the pages that several processes have in common fairly among them, so that the
    numbers of the shop's processes can be added up. Where the kernel does not tell it, the
    resident set size is returned, which counts shared pages in full. None when the process is
    gone or the system has no `/proc`.
    """
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = (proc / str(pid) / name).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None
