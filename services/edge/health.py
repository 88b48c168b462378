"""Whether what the edge needs is there: it serves if each service that routes lead to does."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

import accord

FRESH: Final = 1.0
"""Seconds for which an answer is given again: whoever asks often costs the services nothing."""

PATIENCE: Final = 1.0
"""Seconds that a service may take to say that it serves."""


class Health:
    """Asks services by `grpc.health.v1`, as whoever calls them."""

    def __init__(
        self,
        mesh: accord.Mesh,
        contracts: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`contracts`: full name -> the target that serves it."""
        self._mesh = mesh
        self._contracts = contracts
        self._clock = clock
        self._asking = asyncio.Lock()
        self._until = -1.0
        self._away: tuple[str, ...] = ()

    async def away(self) -> tuple[str, ...]:
        """The targets that do not serve, as of `FRESH` seconds ago at most."""
        async with self._asking:
            if self._clock() >= self._until:
                answers = await asyncio.gather(
                    *(self._serves(*each) for each in self._contracts.items())
                )
                found = zip(self._contracts.values(), answers, strict=True)
                self._away = tuple(sorted({target for target, serves in found if not serves}))
                self._until = self._clock() + FRESH
            return self._away

    async def _serves(self, contract: str, target: str) -> bool:
        stub: Any = HealthStub(self._mesh.channel(target))
        try:
            answer = await stub.Check(HealthCheckRequest(service=contract), timeout=PATIENCE)
        except grpc.RpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)
