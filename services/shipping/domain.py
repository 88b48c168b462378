"""Where a shipment may go, and what it refuses. It is kept as its callers see it.

    unknown    -> PENDING, CANCELLING
    PENDING    -> BOOKED, REFUSED, CANCELLING; CANCELLED if the carrier says that it was cancelled
    BOOKED     -> CANCELLING
    CANCELLING -> CANCELLED; back to BOOKED or PENDING if the carrier has the parcel already

A cancellation of what is not known here - it comes first, or the booking was lost with a restored
database - is asked for like any other, under the id that follows from the order. It leaves a
CANCELLED shipment without units, which no booking gets past.
"""

from dataclasses import dataclass
from typing import Protocol

from accord.errors import FailedPrecondition
from shop.common.v1.address_pb2 import Address
from shop.shipping.v1 import shipping_pb2 as pb


def refusal(shipment: pb.Shipment) -> FailedPrecondition | None:
    """Why a shipment, as it is now, refuses to be booked; None if it does not."""
    if shipment.state == pb.SHIPMENT_STATE_CANCELLED:
        return FailedPrecondition("SHIPMENT_CANCELLED", "the shipment was cancelled before")
    if shipment.state == pb.SHIPMENT_STATE_REFUSED:
        text = f"no carrier takes the parcel: {shipment.refusal_reason}"
        return FailedPrecondition("NO_CARRIER", text)
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the carrier made of a booking: the state that a PENDING shipment gets.

    BOOKED with a tracking number; REFUSED with a reason; CANCELLED when the key had been cancelled.
    """

    state: "pb.ShipmentState.ValueType"
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
