"""The card processor's memory: one row per key, which only moves forward.

    CAPTURED -> REVERSED        DECLINED        BLOCKED (reversed before it was known)

A repeat of a key finds its row and changes nothing.
"""

from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from services.sandbox.domain import Capture, CaptureState
from services.sandbox.store import append_entry, money_of
from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1 import sandbox_pb2 as pb


def capture(
    tx: Tx, key: str, reference: str, amount: Money, decline_reason: str, now: float
) -> tuple[Capture, bool]:
    """Take money, unless the key is known already.

    Returns what is known under the key, and whether that is new.
    """
    state = CaptureState.DECLINED if decline_reason else CaptureState.CAPTURED
    fresh = _insert(tx, key, reference, state, amount, decline_reason)
    if fresh and state is CaptureState.CAPTURED:
        append_entry(tx, pb.ENTRY_KIND_CAPTURED, key, reference, now, amount=amount)
    return _get(tx, key), fresh


def reverse(tx: Tx, key: str, reference: str, now: float) -> Capture:
    """Give back what was taken under a key, or block a key that is not known."""
    if not _insert(tx, key, reference, CaptureState.BLOCKED, None, ""):
        moved = tx.execute(
            "UPDATE captures SET state = 'REVERSED' WHERE key = :key AND state = 'CAPTURED'",
            {"key": key},
        )
        if moved:
            taken = _get(tx, key)
            append_entry(tx, pb.ENTRY_KIND_REVERSED, key, taken.reference, now, amount=taken.amount)
    return _get(tx, key)


def count_call(tx: Tx, key: str) -> int:
    """Count one more call for a key of a flaky card, and return how many there were."""
    calls: int = tx.value(
        "INSERT INTO flaky_captures (key, calls) VALUES (:key, 1)"
        " ON CONFLICT (key) DO UPDATE SET calls = flaky_captures.calls + 1 RETURNING calls",
        {"key": key},
    )
    return calls


def _insert(
    tx: Tx,
    key: str,
    reference: str,
    state: CaptureState,
    amount: Money | None,
    decline_reason: str,
) -> bool:
    return tx.insert(
        "captures",
        {
            "key": key,
            "reference": reference,
            "state": state.value,
            "capture_id": f"cap_{uuid7()}",
            "minor_units": amount.minor_units if amount else None,
            "currency_code": amount.currency_code if amount else None,
            "decline_reason": decline_reason,
        },
        on_conflict="(key) DO NOTHING",
    )


def _get(tx: Tx, key: str) -> Capture:
    row = tx.one("SELECT * FROM captures WHERE key = :key", {"key": key})
    assert row is not None
    return Capture(
        reference=row["reference"],
        state=CaptureState(row["state"]),
        capture_id=row["capture_id"],
        amount=money_of(row),
        decline_reason=row["decline_reason"],
    )
