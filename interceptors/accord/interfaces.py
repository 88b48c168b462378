"""What a process may plug into the interceptors: a validator and an idempotency store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from google.protobuf.message import Message

from accord.policies.idempotency import Scope


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request; `field` is its path, "" for the whole."""

    field: str
    description: str


Validator = Callable[[Message], Sequence[FieldViolation]]
"""Given a request message, what is wrong with it; empty if nothing is."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The record of a call that was made before under the same scope.

    Exactly one of `response` (serialised) and `status` (serialised `google.rpc.Status`, a refusal)
    is set, unless the first call is still at work (`pending`).
    """

    fingerprint: bytes
    response: bytes | None = None
    status: bytes | None = None
    pending: bool = False


class IdempotencyStore(Protocol):
    """Where handlers write their answers, in the transaction of the effect itself."""

    async def lookup(self, scope: Scope) -> StoredAnswer | None:
        """The record of this scope, or None if it was never used or has expired."""
        ...


class SyncIdempotencyStore(Protocol):
    """As `IdempotencyStore`, for servers whose handlers run in threads."""

    def lookup(self, scope: Scope) -> StoredAnswer | None:
        """The record of this scope, or None if it was never used or has expired."""
        ...


Repeats = IdempotencyStore | SyncIdempotencyStore | Literal["handler"]
"""Who recognises a repeat under KEY_REQUIRED: a store that the interceptor asks, or the handler."""
