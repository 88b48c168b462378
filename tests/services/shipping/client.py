"""A caller of the shipping service without interceptors: no attempt is hidden, here or below."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from accord import idempotency_key
from services.topology import address
from shop.sandbox.v1 import sandbox_pb2 as outside
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from tests.services.sandbox.world import DEADLINE, SINGLE, failure
from tests.support import shop

LINES = [pb.ParcelLine(sku="bolt", quantity=3), pb.ParcelLine(sku="nut", quantity=2)]
UNITS = 5
BOOKED = [outside.ENTRY_KIND_BOOKED]
BOOKED_AND_CANCELLED = [outside.ENTRY_KIND_BOOKED, outside.ENTRY_KIND_CANCELLED]


class Client:
    """Calls the shipping service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ShippingServiceStub(channel)

    async def create(
        self,
        order: str,
        country: str = "DE",
        *,
        key: str | None = None,
        timeout: float = DEADLINE,
    ) -> pb.Shipment:
        """Ship an order, under its own key unless another is given."""
        request = pb.CreateShipmentRequest(
            order_id=order, ship_to=shop.address(country), lines=LINES
        )
        metadata = (*SINGLE, *idempotency_key(key or f"{order}/ship"))
        answer = await self._stub.CreateShipment(request, metadata=metadata, timeout=timeout)
        return answer.shipment

    async def cancel(self, order: str) -> pb.Shipment:
        request = pb.CancelShipmentRequest(order_id=order)
        return (
            await self._stub.CancelShipment(request, metadata=SINGLE, timeout=DEADLINE)
        ).shipment

    async def get(self, order: str) -> pb.Shipment:
        request = pb.GetShipmentRequest(order_id=order)
        return (await self._stub.GetShipment(request, timeout=DEADLINE)).shipment

    async def many(self, orders: list[str]) -> pb.BatchGetShipmentsResponse:
        request = pb.BatchGetShipmentsRequest(order_ids=orders)
        return await self._stub.BatchGetShipments(request, timeout=DEADLINE)

    async def state(self, order: str) -> pb.ShipmentState.ValueType:
        return (await self.get(order)).state

    async def is_cancelled(self, order: str) -> bool:
        """Whether the cancellation is over."""
        try:
            return await self.state(order) == pb.SHIPMENT_STATE_CANCELLED
        except grpc.aio.AioRpcError:
            return False

    async def is_booked(self, order: str) -> bool:
        """Try to ship an order."""
        try:
            return (await self.create(order)).state == pb.SHIPMENT_STATE_BOOKED
        except grpc.aio.AioRpcError:
            return False

    async def refusal(self, order: str, **options: object) -> tuple[grpc.StatusCode, str]:
        """Code and reason of a booking that must not succeed."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.create(order, **options)  # type: ignore[arg-type]
        return failure(raised)

    async def cancel_refusal(self, order: str) -> tuple[grpc.StatusCode, str]:
        """Code and reason of a cancellation that must not succeed."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.cancel(order)
        return failure(raised)


@asynccontextmanager
async def calling(offset: int) -> AsyncIterator[Client]:
    """A client of the service at a port offset."""
    async with grpc.aio.insecure_channel(address("shipping", offset)) as channel:
        yield Client(channel)
