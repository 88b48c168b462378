"""How a repeated call is recognised, and what is said to it.

The drivers wait for the first one, each in its own way.
"""

from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Final, TypeGuard

from accord.context import IDEMPOTENCY_KEY, CallContext, Idempotency
from accord.contract.policy_types import Key
from accord.errors import Aborted, InvalidArgument
from accord.interfaces import (
    FieldViolation,
    IdempotencyStore,
    Repeats,
    StoredAnswer,
    SyncIdempotencyStore,
)
from accord.policies.deadline import hop_reserve
from accord.policies.idempotency import POLL_INTERVAL, RETRY_AFTER, Scope, fingerprint, key_problem
from accord.server.error_mapping import Answered
from accord.server.types import Req

KEY_REUSED: Final = "IDEMPOTENCY_KEY_REUSED"
IN_PROGRESS: Final = "IDEMPOTENCY_IN_PROGRESS"
_FIELD: Final = f"metadata.{IDEMPOTENCY_KEY}"
_PATIENCE: Final = 10.0


def identify(
    call: CallContext, headers: Mapping[str, str | bytes], request: Req | None
) -> Idempotency | None:
    """How a repeat of this call is recognised; `request` is None for a stream of them.

    Raises InvalidArgument for a bad key.
    """
    key = headers.get(IDEMPOTENCY_KEY)
    if key is None:
        if call.policy.key is Key.REQUIRED:
            raise _bad_key("is required", "IDEMPOTENCY_KEY_REQUIRED")
        return None
    if not isinstance(key, str):
        raise _bad_key("must be text", "IDEMPOTENCY_KEY_INVALID")
    problem = key_problem(key)
    if problem is not None:
        raise _bad_key(problem, "IDEMPOTENCY_KEY_INVALID")
    seen = b"" if request is None else fingerprint(call.method, request)
    return Idempotency(Scope(call.actor, call.method, key), seen)


def _bad_key(problem: str, reason: str) -> InvalidArgument:
    return InvalidArgument(reason, FieldViolation(_FIELD, problem))


def wait_until(now: float, deadline: float | None) -> float:
    """Until when a repeat waits for the first call: there must be time left to say so."""
    ends = now + _PATIENCE if deadline is None else deadline
    return ends - hop_reserve(ends - now)


def check_same(fingerprint: bytes, call: Idempotency) -> None:
    """Raise InvalidArgument for a key that was used for another request."""
    if fingerprint != call.fingerprint:
        raise InvalidArgument(
            KEY_REUSED, FieldViolation(_FIELD, "was used before for a different request")
        )


def settled(stored: StoredAnswer, call: Idempotency, left: float) -> bool:
    """Whether a record is an answer. Raises as `check_same`, and Aborted if no time is left."""
    check_same(stored.fingerprint, call)
    if stored.pending and left <= POLL_INTERVAL:
        raise still_running()
    return not stored.pending


def replay(stored: StoredAnswer | None) -> bytes:
    """The stored response. Raises `Answered` for a stored refusal, Aborted if there is none."""
    if stored is None:
        raise still_running()
    if stored.status is not None:
        raise Answered(stored.status)
    return stored.response or b""


def still_running() -> Aborted:
    """The first call did not finish in time."""
    return Aborted(
        IN_PROGRESS, "the first call with this key is still at work", retry_after=RETRY_AFTER
    )


def is_awaited(store: Repeats | None) -> TypeGuard[IdempotencyStore]:
    """Whether it is a store for servers of `grpc.aio`."""
    return store is not None and store != "handler" and iscoroutinefunction(store.lookup)


def is_blocking(store: Repeats | None) -> TypeGuard[SyncIdempotencyStore]:
    """Whether it is a store for servers with threads."""
    return store is not None and store != "handler" and not iscoroutinefunction(store.lookup)
