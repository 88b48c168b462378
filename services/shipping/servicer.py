"""The RPCs of `shop.shipping.v1.ShippingService`.

How a shipment is recorded, tried and taken back is `ExternalEffect`'s; this says what it means.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from accord.errors import Aborted, FailedPrecondition, NotFound, Resource, ServiceError, Unavailable
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.record import RecordReader
from accord_runtime.grpc import idempotency, owner
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from accord_runtime.work.executor import Executor
from accord_runtime.work.external_effect import ExternalEffect
from accord_runtime.work.table import Effect
from services.shipping import store
from services.shipping.carrier import SandboxCarrier
from services.shipping.choreography import Choreography
from services.shipping.domain import Carrier, refusal
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED, Fulfilment
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.shipping_pb2_grpc import (
    ShippingServiceServicer,
    add_ShippingServiceServicer_to_server,
)

CANCELLATIONS: Final = "cancellations"
"""Queue of the cancellations that the carrier has not confirmed; key: the order."""


class Shipping(ShippingServiceServicer):
    """Books and cancels parcels."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        carrier: Carrier,
        outbox: Outbox,
        record: RecordReader,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._record = record
        self._carrier = carrier
        self._shipments = ExternalEffect(
            database,
            executor,
            CANCELLATIONS,
            store.find,
            lambda shipment: shipment.state == pb.SHIPMENT_STATE_CANCELLING,
            self._cancel,
        )

    async def CreateShipment(
        self, request: pb.CreateShipmentRequest, context: Context
    ) -> pb.CreateShipmentResponse:
        return await self.book(request, idempotency.key())

    async def book(
        self,
        request: pb.CreateShipmentRequest,
        key: str | None,
        fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
    ) -> pb.CreateShipmentResponse:
        """Book the parcel of an order. Errors as `CreateShipment`."""
        units = sum(line.quantity for line in request.lines)
        return await self._shipments.do(
            request.order_id,
            lambda tx: store.open_booking(
                tx, request.order_id, units, key, time.time(), fulfilment
            ),
            lambda shipment: self._carrier.book(
                shipment.shipment_id, shipment.order_id, request.ship_to, shipment.units
            ),
            lambda tx, shipment, outcome: store.settle(
                tx, self._outbox, shipment, outcome, time.time()
            ),
            _answer,
        )

    async def CancelShipment(
        self, request: pb.CancelShipmentRequest, context: Context
    ) -> pb.CancelShipmentResponse:
        await self._shipments.undo(
            request.order_id, lambda tx: store.begin_cancellation(tx, request.order_id, time.time())
        )

        def answer(tx: Tx) -> pb.CancelShipmentResponse:
            cancelled = store.find(tx, request.order_id)
            assert cancelled is not None
            if cancelled.state == pb.SHIPMENT_STATE_CANCELLING:
                raise Unavailable(message="the cancellation goes on in the background")
            if cancelled.state in (pb.SHIPMENT_STATE_PENDING, pb.SHIPMENT_STATE_BOOKED):
                raise FailedPrecondition("PARCEL_HANDED_OVER", "the carrier has the parcel already")
            return pb.CancelShipmentResponse(shipment=cancelled)

        return await idempotency.commit(self._database, answer)

    async def GetShipment(
        self, request: pb.GetShipmentRequest, context: Context
    ) -> pb.GetShipmentResponse:
        shipment = await self._database.look_up(lambda tx: store.find(tx, request.order_id))
        if shipment is None or owner.only() is not None:  # whose it is, only orders know
            raise NotFound(resource=Resource("shipment", request.order_id))
        return pb.GetShipmentResponse(shipment=shipment)

    async def BatchGetShipments(
        self, request: pb.BatchGetShipmentsRequest, context: Context
    ) -> pb.BatchGetShipmentsResponse:
        found: dict[str, pb.Shipment] = {}
        if owner.only() is None:  # as GetShipment
            found = await self._database.read(lambda tx: store.find_all(tx, request.order_ids))
        return pb.BatchGetShipmentsResponse(
            shipments=[found[order_id] for order_id in request.order_ids if order_id in found],
            missing_order_ids=[each for each in request.order_ids if each not in found],
        )

    async def ReadEvents(
        self, request: pb.ReadEventsRequest, context: Context
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        async with aclosing(self._record.read(request, pb.ReadEventsResponse)) as responses:
            async for response in responses:
                yield response

    async def _cancel(self, shipment: pb.Shipment) -> Effect:
        cancelled = await self._carrier.cancel(shipment.shipment_id, shipment.order_id)
        return lambda tx: store.finish_cancellation(
            tx, self._outbox, shipment.order_id, time.time(), cancelled=cancelled
        )


def _answer(tx: Tx, shipment: pb.Shipment) -> pb.CreateShipmentResponse | ServiceError | None:
    """The answer to a booking, put on record if final; None while the carrier must be asked."""
    if shipment.state == pb.SHIPMENT_STATE_PENDING:
        return None
    if shipment.state == pb.SHIPMENT_STATE_CANCELLING:
        # Not an answer to keep: the carrier may refuse to cancel.
        return Aborted(message="the shipment is being cancelled", retry_after=1.0)
    answer = refusal(shipment) or pb.CreateShipmentResponse(shipment=shipment)
    idempotency.record(tx, answer)
    return answer


def build(runtime: Runtime) -> None:
    """Put the servicer on the server, with the sandbox's carrier behind it."""
    servicer = Shipping(
        runtime.database,
        runtime.executor,
        SandboxCarrier(runtime.mesh.channel("sandbox")),
        runtime.outbox,
        RecordReader(runtime.database, runtime.notifier),
    )
    Choreography(runtime, servicer.book)
    add_ShippingServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="shipping",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.shipping.v1.ShippingService",),
)
