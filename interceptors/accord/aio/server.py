"""A server that checks its contracts, tells its health and drains before it stops."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc.aio import _server
from grpc_health.v1 import health

from accord.server.registration import LAME_DUCK, SERVING, Pipelines, Registration

bare: Any = _server.server
"""As `grpc.aio.server`, beneath any instrumentation (see `client_channel.bare`)."""


class Server(Registration, grpc.aio.Server):
    """gRPC's server with health and drain.

    It serves `grpc.health.v1.Health`, unless a servicer of that name is added: every service that
    it has, and "" for the process, is SERVING between `start` and `stop`.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        *,
        pipelines: Pipelines | None = None,
        lame_duck: float = LAME_DUCK,
    ) -> None:
        """`pipelines`: takes the place of the interceptor that `server` has not got."""
        super().__init__(server, pipelines)
        self._lame_duck = lame_duck
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._stopping = False

    async def start(self) -> None:
        """Serve, and say so. Raises ContractError: a served method has an invalid policy."""
        for name in self._complete(self._health):
            await self._health.set(name, SERVING)
        await self._server.start()

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
        return bool(await self._server.wait_for_termination(timeout))
