"""A server that checks its contracts, tells its health and drains before it stops."""

import asyncio
from typing import Any

import grpc.aio
from grpc.aio import _server
from grpc_health.v1 import health, health_pb2_grpc

from accord.server.registration import HEALTH, LAME_DUCK, SERVING, Pipelines, Registration


class Server(Registration[_server.Server], grpc.aio.Server):
    """gRPC's server with health and drain.

    It serves `grpc.health.v1.Health`, unless a servicer of that name is added: every service that
    it has, and "" for the process, is SERVING between `start` and `stop`.
    """

    def __init__(
        self,
        server: _server.Server,
        pipelines: Pipelines,
        intercepted: bool,
        *,
        lame_duck: float = LAME_DUCK,
    ) -> None:
        """`pipelines` and `intercepted` as in `Registration`."""
        super().__init__(server, pipelines, intercepted=intercepted)
        self._lame_duck = lame_duck
        # The stubs of gRPC's health service know its sync servicer only.
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._stopping = False

    async def start(self) -> None:
        """Serve, and say so. Raises ContractError: a served method has an invalid policy."""
        for name in self._check():
            await self._health.set(name, SERVING)
        if HEALTH not in self._services:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self)
        await self._server.start()

    @property
    def health(self) -> Any:  # gRPC's stubs know its sync servicer only
        """The servicer of its health, for another server on a port that needs no certificate."""
        return self._health

    async def set_health(self, service: str, status: int) -> None:
        """As gRPC's own `HealthServicer.set`; a server that drains stays NOT_SERVING."""
        await self._health.set(service, status)

    async def stop(self, grace: float | None = None) -> None:
        """Say "not serving", let callers move away, then stop; None stops at once.

        A call that is queued when gRPC stops is lost (grpc/grpc#41785), so the callers, who watch
        the health of their servers, are given `lame_duck` seconds to go elsewhere. Calls that run
        get `grace` seconds after that.
        """
        if grace is not None and not self._stopping:
            self._stopping = True
            await self._health.enter_graceful_shutdown()
            await asyncio.sleep(self._lame_duck)
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """As gRPC's own."""
        return await self._server.wait_for_termination(timeout)
