"""The carrier of the sandbox, as shipping sees it."""

import grpc

from accord.errors import ServiceError
from services.shipping.domain import Outcome
from shop.common.v1.address_pb2 import Address
from shop.sandbox.v1 import sandbox_pb2 as pb
from shop.sandbox.v1.sandbox_pb2_grpc import CarrierServiceStub
from shop.shipping.v1 import shipping_pb2


class SandboxCarrier:
    """A `Carrier` over gRPC. What is not an answer escapes as the call's own error."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = CarrierServiceStub(channel)

    async def book(self, key: str, reference: str, ship_to: Address, units: int) -> Outcome:
        """Book a parcel; see `Carrier`."""
        request = pb.BookParcelRequest(key=key, reference=reference, ship_to=ship_to, units=units)
        try:
            booked = await self._stub.BookParcel(request)
        except grpc.RpcError as error:
            refusal = ServiceError.from_rpc(error)
            if refusal.reason == "DESTINATION_NOT_SERVED":
                return Outcome(shipping_pb2.SHIPMENT_STATE_REFUSED, refusal_reason=refusal.message)
            if refusal.reason == "KEY_CANCELLED":
                return Outcome(shipping_pb2.SHIPMENT_STATE_CANCELLED)
            raise
        return Outcome(shipping_pb2.SHIPMENT_STATE_BOOKED, tracking_number=booked.tracking_number)

    async def cancel(self, key: str, reference: str) -> bool:
        """Cancel a parcel; see `Carrier`."""
        try:
            await self._stub.CancelParcel(pb.CancelParcelRequest(key=key, reference=reference))
        except grpc.RpcError as error:
            if ServiceError.from_rpc(error).reason == "PARCEL_HANDED_OVER":
                return False
            raise
        return True
