"""The carrier's memory: one row per key, which only moves forward.

    BOOKED -> CANCELLED         REFUSED         BLOCKED (cancelled before it was known)
       '----> HANDED_OVER

A repeat of a key finds its row and changes nothing.
"""

from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from services.sandbox.domain import Parcel, ParcelState
from services.sandbox.store import append_entry
from shop.sandbox.v1 import sandbox_pb2 as pb


def book(tx: Tx, key: str, reference: str, units: int, now: float, *, refused: bool) -> Parcel:
    """Book a parcel, unless the key is known already; returns what is known under the key."""
    state = ParcelState.REFUSED if refused else ParcelState.BOOKED
    if _insert(tx, key, reference, state, units) and state is ParcelState.BOOKED:
        append_entry(tx, pb.ENTRY_KIND_BOOKED, key, reference, now, units=units)
    return _get(tx, key)


def cancel(tx: Tx, key: str, reference: str, now: float, *, handed_over: bool) -> Parcel:
    """Cancel a parcel, or block a key that is not known.

    With `handed_over` a booked parcel is found to be on its way already.
    """
    if not _insert(tx, key, reference, ParcelState.BLOCKED, 0):
        state = ParcelState.HANDED_OVER if handed_over else ParcelState.CANCELLED
        moved = tx.execute(
            "UPDATE parcels SET state = :state WHERE key = :key AND state = 'BOOKED'",
            {"key": key, "state": state.value},
        )
        if moved and not handed_over:
            booked = _get(tx, key)
            append_entry(
                tx, pb.ENTRY_KIND_CANCELLED, key, booked.reference, now, units=booked.units
            )
    return _get(tx, key)


def _insert(tx: Tx, key: str, reference: str, state: ParcelState, units: int) -> bool:
    return tx.insert(
        "parcels",
        {
            "key": key,
            "reference": reference,
            "state": state.value,
            "tracking_number": f"SBX{uuid7().replace('-', '').upper()}",
            "units": units,
        },
        on_conflict="(key) DO NOTHING",
    )


def _get(tx: Tx, key: str) -> Parcel:
    sql = "SELECT reference, state, tracking_number, units FROM parcels WHERE key = :key"
    row = tx.one(sql, {"key": key})
    assert row is not None
    return Parcel(**{**row, "state": ParcelState(row["state"])})
