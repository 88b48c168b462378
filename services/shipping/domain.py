"""What a shipment is and where it may go.

    PENDING    -> BOOKED, REFUSED, CANCELLING; CANCELLED if the carrier says that it was cancelled
    BOOKED     -> CANCELLING
    CANCELLING -> CANCELLED; back to BOOKED or PENDING if the carrier has the parcel already

A cancellation that comes first leaves a CANCELLED shipment, which no booking gets past.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from shop.common.v1.address_pb2 import Address


class ShipmentState(StrEnum):
    """Where a shipment stands."""

    PENDING = "PENDING"
    BOOKED = "BOOKED"
    REFUSED = "REFUSED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Shipment:
    """The parcel of an order. Its id is the key under which the carrier is asked."""

    shipment_id: str
    order_id: str
    units: int
    """Units in the parcel; 0 if it was cancelled before anybody booked it."""
    state: ShipmentState
    tracking_number: str
    refusal_reason: str
    updated_at: float
    """Unix seconds."""


class Refusal(Enum):
    """Why an order is not shipped: reason and explanation."""

    NO_CARRIER = "no carrier takes the parcel"
    SHIPMENT_CANCELLED = "the shipment was cancelled before"


def refusal(shipment: Shipment) -> Refusal | None:
    """Why a shipment, as it is now, refuses to be booked; None if it does not."""
    if shipment.state is ShipmentState.CANCELLED:
        return Refusal.SHIPMENT_CANCELLED
    if shipment.state is ShipmentState.REFUSED:
        return Refusal.NO_CARRIER
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the carrier made of a booking: the state that a PENDING shipment gets.

    BOOKED with a tracking number; REFUSED with a reason; CANCELLED when the key had been cancelled.
    """

    state: ShipmentState
    tracking_number: str = ""
    refusal_reason: str = ""


class Carrier(Protocol):
    """Whoever moves the parcels. Both methods may be repeated with a key without doing more."""

    async def book(self, key: str, reference: str, ship_to: Address, units: int) -> Outcome:
        """Book a parcel.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """

    async def cancel(self, key: str, reference: str) -> bool:
        """Cancel a parcel, and let none be booked under its key any more.

        Returns whether it is cancelled; a parcel that the carrier has already is not, and never
        will be.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """
