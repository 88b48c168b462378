"""Four processes in a row, in one: an edge, two tiers and a leaf that always fails."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.budget import BudgetPolicy
from tests.accord.drivers import Driver
from tests.accord.kit import Stub, path


@dataclass(slots=True)
class Tiers:
    """`edge` calls the first tier, which calls the second, which calls the leaf."""

    edge: Stub
    leaf_calls: int = 0


@asynccontextmanager
async def tiers(driver: Driver | None = None) -> AsyncIterator[Tiers]:
    """Every tier makes four attempts; no budget has a floor, and the breakers only count.

    Without a driver it is `grpc.aio`.
    """
    driver = driver or Driver("aio")
    off = mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_BREAKER])
    meshes = [
        accord.Mesh(name, budget=BudgetPolicy(floor=0.0)) for name in ("edge", "first", "second")
    ]
    for mesh in meshes:
        mesh.control.overrides.set(path("Retried"), off)
    edge, first, second = meshes
    below: dict[accord.Mesh, Stub] = {}

    async def leaf(request: Any, context: Any) -> Any:
        found.leaf_calls += 1
        raise accord.Unavailable("DOWN")

    def relay(mesh: accord.Mesh) -> Callable[..., Any]:
        async def handler(request: Any, context: Any) -> Any:
            return await below[mesh].Retried(request)

        return handler

    async with (
        driver.serving(accord.Mesh("leaf"), {"Retried": leaf}) as leaf_at,
        driver.serving(second, {"Retried": relay(second)}) as second_at,
        driver.serving(first, {"Retried": relay(first)}) as first_at,
    ):
        below[second] = driver.stub(second, leaf_at)
        below[first] = driver.stub(first, second_at)
        found = Tiers(driver.stub(edge, first_at))
        try:
            yield found
        finally:
            for mesh in meshes:
                await driver.close(mesh)
