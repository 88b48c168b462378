"""CreateOrder while more orders are on their way than there may be."""

from pathlib import Path
from typing import Any

import grpc
import pytest

import accord
from accord.errors import ServiceError
from accord_runtime.admin import health
from accord_runtime.grpc.ids import uuid7
from accord_runtime.work.backlog import LOOK
from shop.orders.v1 import orders_pb2 as pb
from tests.support.nats import nats_server
from tests.support.shop import order_request, running_shop
from tests.support.wait import until


async def test_orders_are_refused_beyond_the_bound_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many orders on their way refuse a new one with a delay, until they have ended."""
    monkeypatch.setattr(health, "LOOK", 0.05)
    names = ("sandbox", "customers", "inventory", "shipping", "orders")
    async with (
        nats_server() as broker,
        running_shop(tmp_path, *names, nats_url=broker.url, max_backlog=3) as shop,
    ):
        await shop.product("tea")
        request = order_request(await shop.customer(), {"tea": 1})
        taken: dict[str, pb.CreateOrderResponse] = {}
        refused: list[grpc.aio.AioRpcError] = []

        async def place() -> bool:
            key = uuid7()
            try:
                metadata = accord.idempotency_key(key)
                taken[key] = await shop.orders.CreateOrder(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                refused.append(error)
            return bool(refused)

        await until(place, "an order to be refused")  # Nobody charges the others.
        assert len(taken) >= 3
        error = ServiceError.from_rpc(refused[0])
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.reason == "BACKLOG_FULL"
        assert error.retry_after is not None
        assert error.retry_after >= LOOK
        trailers: Any = refused[0].trailing_metadata()
        (pushback,) = trailers.get_all("grpc-retry-pushback-ms")
        assert int(pushback) >= 1000 * LOOK
        for key, answer in taken.items():
            metadata = accord.idempotency_key(key)
            assert await shop.orders.CreateOrder(request, metadata=metadata) == answer

        await shop.start("payments")
        refused.clear()

        async def placed() -> bool:
            known = len(taken)
            await place()
            return len(taken) > known

        await until(placed, "an order to be taken")
