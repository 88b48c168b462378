"""The RPCs of `shop.shipping.v1.ShippingService`.

The carrier is never asked inside a transaction. Before it is asked, the row says so; after it has
answered, the row may have moved on, and then the row is right: it was written first.
"""

from collections.abc import Callable
from typing import Any, Final

from accord.context import current
from accord.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ServiceError,
    Unavailable,
)
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.idempotency import commit, record
from accord_runtime.work.executor import Effect, Executor, Work, expedite
from services.shipping import store
from services.shipping.domain import Carrier, Refusal, Shipment, ShipmentState, refusal
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceServicer

CANCELLATIONS: Final = "cancellations"
"""Queue of the cancellations that the carrier has not confirmed; key: the order."""


class Shipping(ShippingServiceServicer):
    """Books and cancels parcels."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        carrier: Carrier,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._executor = executor
        self._carrier = carrier
        self._clock = clock
        executor.register(CANCELLATIONS, self._go_on)

    async def CreateShipment(
        self, request: pb.CreateShipmentRequest, context: Any
    ) -> pb.CreateShipmentResponse:
        units = sum(line.quantity for line in request.lines)
        key = _idempotency_key()

        def begin(tx: Tx) -> tuple[Shipment, pb.CreateShipmentResponse | ServiceError | None]:
            shipment = store.open_booking(tx, request.order_id, units, key, self._clock())
            if shipment is None:
                raise InvalidArgument(
                    ("", "the idempotency key was used for another order"),
                    reason="IDEMPOTENCY_KEY_REUSED",
                )
            return shipment, _answer(tx, shipment)

        shipment, answer = await self._database.write(begin)
        if answer is None:
            outcome = await self._carrier.book(
                shipment.shipment_id, shipment.order_id, request.ship_to, shipment.units
            )
            answer = await self._database.write(
                lambda tx: _answer(tx, store.settle(tx, shipment, outcome, self._clock()))
            )
            assert answer is not None
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    async def CancelShipment(
        self, request: pb.CancelShipmentRequest, context: Any
    ) -> pb.CancelShipmentResponse:
        def begin(tx: Tx) -> tuple[Shipment, Work | None]:
            shipment, begun = store.begin_cancellation(tx, request.order_id, self._clock())
            # Whatever happens to this process, the work is found again.
            work = None
            if begun:
                work = self._executor.enqueue_held(tx, CANCELLATIONS, shipment.order_id)
            return shipment, work

        shipment, work = await self._database.write(begin)
        if work is not None:
            await self._executor.run(work)
        elif shipment.state is ShipmentState.CANCELLING:
            await self._catch_up(shipment)

        def answer(tx: Tx) -> pb.CancelShipmentResponse:
            cancelled = store.find(tx, request.order_id)
            assert cancelled is not None
            if cancelled.state is ShipmentState.CANCELLING:
                raise Unavailable(message="the cancellation goes on in the background")
            if cancelled.state in (ShipmentState.PENDING, ShipmentState.BOOKED):
                raise FailedPrecondition("PARCEL_HANDED_OVER", "the carrier has the parcel already")
            return pb.CancelShipmentResponse(shipment=_message(cancelled))

        return await commit(self._database, answer)

    async def GetShipment(
        self, request: pb.GetShipmentRequest, context: Any
    ) -> pb.GetShipmentResponse:
        shipment = await self._database.read(lambda tx: store.find(tx, request.order_id))
        if shipment is None:
            raise NotFound("shipment", request.order_id)
        return pb.GetShipmentResponse(shipment=_message(shipment))

    async def _go_on(self, work: Work) -> Effect | None:
        """Finish a cancellation that was begun; the handler of the queue."""
        shipment = await self._database.read(lambda tx: store.find(tx, work.key))
        if shipment is None or shipment.state is not ShipmentState.CANCELLING:
            return None
        return await self._undo(shipment)

    async def _catch_up(self, shipment: Shipment) -> None:
        """Finish a cancellation whose work waits for its next attempt, or for an operator."""
        finish = await self._undo(shipment)

        def write(tx: Tx) -> None:
            finish(tx)
            # It finds nothing left to do, and is gone from the operator's list.
            expedite(tx, CANCELLATIONS, shipment.order_id, self._clock())

        await self._database.write(write)

    async def _undo(self, shipment: Shipment) -> Effect:
        cancelled = await self._carrier.cancel(shipment.shipment_id, shipment.order_id)
        return lambda tx: store.finish_cancellation(
            tx, shipment.order_id, self._clock(), cancelled=cancelled
        )


def _idempotency_key() -> str | None:
    call = current()
    return call.idempotency.scope.key if call and call.idempotency else None


def _answer(tx: Tx, shipment: Shipment) -> pb.CreateShipmentResponse | ServiceError | None:
    """The answer to a booking, put on record if final; None while the carrier must be asked."""
    if shipment.state is ShipmentState.PENDING:
        return None
    if shipment.state is ShipmentState.CANCELLING:
        # Not an answer to keep: the carrier may refuse to cancel.
        return Aborted(message="the shipment is being cancelled", retry_after=1.0)
    refused = refusal(shipment)
    answer: pb.CreateShipmentResponse | ServiceError
    if refused is None:
        answer = pb.CreateShipmentResponse(shipment=_message(shipment))
    else:
        answer = _error(refused, shipment)
    record(tx, answer)
    return answer


def _error(refused: Refusal, shipment: Shipment) -> ServiceError:
    reason = f": {shipment.refusal_reason}" if refused is Refusal.NO_CARRIER else ""
    return FailedPrecondition(refused.name, f"{refused.value}{reason}")


def _message(shipment: Shipment) -> pb.Shipment:
    message = pb.Shipment(
        shipment_id=shipment.shipment_id,
        order_id=shipment.order_id,
        state=pb.ShipmentState.Value(f"SHIPMENT_STATE_{shipment.state.value}"),
        tracking_number=shipment.tracking_number,
        units=shipment.units,
        refusal_reason=shipment.refusal_reason,
    )
    message.updated_at.FromMicroseconds(round(shipment.updated_at * 1e6))
    return message
