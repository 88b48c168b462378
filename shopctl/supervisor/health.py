"""Asks one process whether it serves, and how much memory it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path


class State(StrEnum):
    """What a health check found out, or what the supervisor knows about a child."""

    STARTING = "starting"
    SERVING = "serving"
    NOT_SERVING = "not serving"
    UNREACHABLE = "unreachable"
    RESTARTING = "restarting"
    STOPPED = "stopped"


Check = Callable[[str, float], Awaitable[State]]
"""Asks whoever listens at an address whether it serves, within a time in seconds.

Returns SERVING, NOT_SERVING or UNREACHABLE; raises nothing.
"""


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def check_grpc(address: str, timeout: float) -> State:
    """A `Check` by `grpc.health.v1.Health/Check` of the server as a whole (service name "")."""
    try:
        async with asyncio.timeout(timeout):
            # A refused connection is cheap to notice here; a gRPC channel would go into
            # back-off for a second. It also spares the import of gRPC until it is needed.
            _, writer = await _open(address)
            writer.close()
    except (OSError, TimeoutError):
        return State.UNREACHABLE

    import grpc.aio
    from grpc_health.v1 import health_pb2

    # A proxy from the environment has no business between us and loopback.
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ] = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await call(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return State.UNREACHABLE if error.code() in unreachable else State.NOT_SERVING
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return State.SERVING if serving else State.NOT_SERVING


async def check_broker(address: str, timeout: float) -> State:
    """A `Check` of a NATS server, which greets whoever connects with an `INFO` line."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _open(address)
            try:
                greeting = await reader.read(5)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return State.UNREACHABLE
    return State.SERVING if greeting == b"INFO " else State.NOT_SERVING


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
