"""What a process consumes and publishes, as whoever watches it sees that."""

import asyncio
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

import accord
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord_runtime.grpc.ids import uuid7
from tests.services.orders.books import updates
from tests.support.nats import NatsServer
from tests.support.shop import Shop, order_request, running_shop

NAMES = ("sandbox", "customers", "inventory", "payments", "shipping", "notifications", "orders")


async def test_events_are_seen_at_both_ends(tmp_path: Path, broker_server: NatsServer) -> None:
    """Orders publishes, notifications handles, and in the end nothing waits on either side."""
    async with running_shop(tmp_path, *NAMES, nats_url=broker_server.url) as shop:
        await shop.product("tea", 499, on_hand=10)
        request = order_request(await shop.customer(), {"tea": 2})
        placed = await shop.orders.CreateOrder(request, metadata=accord.idempotency_key(uuid7()))
        await updates(shop, placed.order.order_id)
        out = await settled(shop, "orders", pb.DIRECTION_OUT)
        taken = await settled(shop, "notifications", pb.DIRECTION_IN)
        assert (out.source, taken.source) == ("orders", "orders")
        assert out.done >= taken.done
        assert (out.failed, taken.failed, taken.parked) == (0, 0, 0)
        for edge in (out, taken):
            assert not edge.HasField("oldest_age")
        quiet = await anext(watching(shop, "customers"))
        assert not quiet.event_edges  # it neither publishes nor consumes


def watching(shop: Shop, service: str) -> Any:
    request = pb.WatchStateRequest(interval=Duration(nanos=500_000_000))
    return aiter(MeshServiceStub(shop.channel(service)).WatchState(request))


async def settled(shop: Shop, service: str, direction: "pb.Direction.ValueType") -> pb.EventEdge:
    """An event edge of a service on which something was done, and nothing waits."""
    async with asyncio.timeout(30):
        async for response in watching(shop, service):
            for edge in response.event_edges:
                if edge.direction == direction and edge.done and not edge.waiting:
                    found: pb.EventEdge = edge
                    return found
    raise AssertionError("the stream has ended")
