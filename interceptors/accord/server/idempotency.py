"""What is said to a repeated call; the drivers wait for the first one, each in its own way."""

from typing import Final

from accord.context import Idempotency
from accord.errors import Aborted, InvalidArgument
from accord.interfaces import StoredAnswer
from accord.policies.deadline import hop_reserve
from accord.policies.idempotency import RETRY_AFTER
from accord.server.error_mapping import Answered

KEY_REUSED: Final = "IDEMPOTENCY_KEY_REUSED"
IN_PROGRESS: Final = "IDEMPOTENCY_IN_PROGRESS"
_PATIENCE: Final = 10.0


def wait_until(now: float, deadline: float | None) -> float:
    """Until when a repeat waits for the first call: there must be time left to say so."""
    ends = now + _PATIENCE if deadline is None else deadline
    return ends - hop_reserve(ends - now)


def check_same(fingerprint: bytes, call: Idempotency) -> None:
    """Raise InvalidArgument for a key that was used for another request."""
    if fingerprint != call.fingerprint:
        raise InvalidArgument(
            ("metadata.idempotency-key", "was used before for a different request"),
            reason=KEY_REUSED,
        )


def replay(stored: StoredAnswer) -> bytes:
    """The stored response. Raises `Answered` for a stored refusal."""
    if stored.status is not None:
        raise Answered(stored.status)
    return stored.response or b""


def still_running() -> Aborted:
    """The first call did not finish in time."""
    return Aborted(
        IN_PROGRESS, "the first call with this key is still at work", retry_after=RETRY_AFTER
    )
