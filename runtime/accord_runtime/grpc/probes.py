"""Health on a port without certificates: who watches takes no place from those who probe."""

from typing import Any, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord_runtime.grpc.types import Context

PROBES: Final = 100
"""Calls at once, which everybody may make who reaches the port, and as many watches beside."""


class Probes(health_pb2_grpc.HealthServicer):
    """The health of another server."""

    def __init__(self, health: Any) -> None:  # gRPC's stubs know its sync servicer only
        self._health = health
        self._watches = 0

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        """Says how it is."""
        return await self._health.Check(request, context)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Says how it is, and how it changes. Raises ResourceExhausted: too many watch."""
        if self._watches >= PROBES:
            raise accord.ResourceExhausted("WATCHED", 1.0, "others watch already; ask by Check")
        self._watches += 1
        try:
            await self._health.Watch(request, context)
        finally:
            self._watches -= 1
