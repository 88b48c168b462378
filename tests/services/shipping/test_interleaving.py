"""No interleaving and no crash ships an order twice or lets our books lie."""

from pathlib import Path
from typing import Any, Final

import pytest

from accord.errors import FailedPrecondition
from accord_runtime.database import Database
from accord_runtime.events.notifier import Notifier
from accord_runtime.events.record import RecordReader
from accord_runtime.work.executor import Executor
from services.shipping import store
from services.shipping.carrier import SandboxCarrier
from services.shipping.domain import Carrier, Outcome
from services.shipping.servicer import Shipping
from shop.common.v1.address_pb2 import Address
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.events_pb2 import ShipmentBooked
from tests.chaos.scale import FULL
from tests.services.sandbox.interleaving import Gate, Interleaving, Standing, explore, running_bench
from tests.services.shipping.client import BOOKED, BOOKED_AND_CANCELLED, LINES
from tests.services.shipping.test_store import EVENTS
from tests.support import shop
from tests.support.events import OUTBOX, events_of

NO_CONTEXT: Final[Any] = None
"""The servicer needs none."""


class GatedCarrier:
    """The real carrier, behind a gate."""

    def __init__(self, inner: Carrier, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def book(self, key: str, reference: str, ship_to: Address, units: int) -> Outcome:
        return await self._gate.call(lambda: self._inner.book(key, reference, ship_to, units))

    async def cancel(self, key: str, reference: str) -> bool:
        return await self._gate.call(lambda: self._inner.cancel(key, reference))


class BookingsAndCancellations(Interleaving):
    """Bookings and cancellations of some orders, and parcels that leave, in every order."""

    variants = ["DE", "FR", "US", "AQ"]  # noqa: RUF012
    table = "shipment"

    def build(self, database: Database, executor: Executor) -> None:
        carrier = GatedCarrier(SandboxCarrier(self.bench.channel), self.gate)
        record = RecordReader(database, Notifier())
        self.shipping = Shipping(database, executor, carrier, OUTBOX, record)

    async def act_outside(self, order: str) -> None:
        """The carrier takes a booked parcel on its way."""
        await self.bench.outside.write(
            lambda tx: tx.execute(
                "UPDATE parcels SET state = 'HANDED_OVER'"
                " WHERE state = 'BOOKED' AND reference = :order",
                {"order": order},
            )
        )

    async def perform(self, order: str, variant: str) -> str:
        request = pb.CreateShipmentRequest(
            order_id=order, ship_to=shop.address(variant), lines=LINES
        )
        shipment = (await self.shipping.CreateShipment(request, NO_CONTEXT)).shipment
        assert shipment.tracking_number
        return shipment.shipment_id

    async def undo(self, order: str) -> bool:
        request = pb.CancelShipmentRequest(order_id=order)
        try:
            state = (await self.shipping.CancelShipment(request, NO_CONTEXT)).shipment.state
        except FailedPrecondition as error:
            if error.reason != "PARCEL_HANDED_OVER":
                raise
            return False
        assert state in (pb.SHIPMENT_STATE_CANCELLED, pb.SHIPMENT_STATE_REFUSED)
        return True

    async def state(self, order: str) -> "pb.ShipmentState.ValueType | None":
        shipment = await self.bench.database.read(lambda tx: store.find(tx, order))
        return shipment.state if shipment else None

    async def standing(self, order: str) -> Standing:
        return {
            None: Standing.OPEN,
            pb.SHIPMENT_STATE_PENDING: Standing.OPEN,
            pb.SHIPMENT_STATE_BOOKED: Standing.DONE,
            pb.SHIPMENT_STATE_REFUSED: Standing.NOT_DONE,
            pb.SHIPMENT_STATE_CANCELLING: Standing.UNDOING,
            pb.SHIPMENT_STATE_CANCELLED: Standing.NOT_DONE,
        }[await self.state(order)]

    async def check_books(self, order: str, variant: str, *, undone: bool | None) -> None:
        state, kinds = await self.state(order), await self.bench.world.kinds(order)

        if state == pb.SHIPMENT_STATE_BOOKED:
            assert kinds == BOOKED
        elif state == pb.SHIPMENT_STATE_CANCELLED:
            assert not kinds or kinds == BOOKED_AND_CANCELLED
        else:
            assert state in (None, pb.SHIPMENT_STATE_REFUSED)
            assert not kinds
        said = await events_of(self.bench.database, order)
        assert state is None or isinstance(said[-1], EVENTS[state])
        assert sum(isinstance(event, ShipmentBooked) for event in said) <= 1
        if undone:
            assert state in (pb.SHIPMENT_STATE_CANCELLED, pb.SHIPMENT_STATE_REFUSED)
        elif undone is False:
            assert state == pb.SHIPMENT_STATE_BOOKED
        elif variant:
            served = variant != "AQ"
            assert state == (pb.SHIPMENT_STATE_BOOKED if served else pb.SHIPMENT_STATE_REFUSED)


@pytest.mark.slow
def test_the_books_agree_with_the_ledger(tmp_path: Path) -> None:
    """After any interleaving, failure and crash, one parcel travels, if any, and we know it."""
    with running_bench(tmp_path, "", "shipping", store.MIGRATIONS) as bench:
        explore(BookingsAndCancellations, bench, examples=200 if FULL else 60)


@pytest.mark.slow
def test_the_books_agree_with_the_ledger_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The same on the other backend, shorter: gates lie between transactions, not inside them."""
    with running_bench(tmp_path, postgres_url, "shipping_gated", store.MIGRATIONS) as bench:
        explore(BookingsAndCancellations, bench, examples=30 if FULL else 10)
