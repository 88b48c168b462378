"""Idempotency records: written by the handler's own transaction.

The server interceptor looks a repeated call up (accord); the record is written
here, in the transaction that has the effect, so that it exists exactly when the
effect does. Business refusals are answers too and are kept; transient errors
never are.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Final, TypeVar

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

import accord
from accord import Idempotency, IdempotencyConflict, Scope, ServiceError, StoredAnswer
from accord_runtime.database import Database, Tx

MIGRATIONS: Final = [
    """
    CREATE TABLE idempotency (
        principal TEXT NOT NULL,
        method TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        response BLOB,
        status BLOB,
        reference TEXT,
        created_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (principal, method, key)
    )
    """,
    "CREATE INDEX idempotency_reference ON idempotency (reference)",
    "CREATE INDEX idempotency_created ON idempotency (created_at)",
]

KEPT: Final = 7 * 24 * 3600.0
"""Seconds that an answer is kept: 7 days."""

M = TypeVar("M", bound=Message)


class SqlIdempotencyStore:
    """Where the server interceptor looks answers up (`accord.IdempotencyStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lookup(self, scope: Scope) -> StoredAnswer | None:
        """The answer of a call with this scope; pending while its outcome is open."""
        return await self._database.read(lambda tx: find(tx, scope, time.time()))


def find(tx: Tx, scope: Scope, now: float) -> StoredAnswer | None:
    """The record of a scope, unless it is too old."""
    row = tx.one(
        "SELECT fingerprint, response, status FROM idempotency WHERE principal = :principal"
        " AND method = :method AND key = :key AND created_at > :oldest",
        {**asdict(scope), "oldest": now - KEPT},
    )
    if row is None:
        return None
    return StoredAnswer(**row, pending=row["response"] is None and row["status"] is None)


def record(
    tx: Tx,
    answer: Message | ServiceError | None,
    *,
    call: Idempotency | None = None,
    reference: str | None = None,
    now: float | None = None,
) -> None:
    """Write the answer of a call, in the transaction that has its effect.

    Args:
        tx: the transaction.
        answer: the response, or the refusal; None for "still open": a repeat
            waits, and `settle` writes the answer later.
        call: the call; by default the one being handled. Nothing is written for
            a call without a key.
        reference: what `settle` finds an open record by.
        now: Unix time in seconds.

    Raises:
        IdempotencyConflict: the same call was answered meanwhile by another
            process; this transaction must not commit.
    """
    call = call or _current()
    if call is None:
        return
    now = time.time() if now is None else now
    tx.execute(
        "DELETE FROM idempotency WHERE principal = :principal AND method = :method AND key = :key"
        " AND created_at <= :oldest",
        {**asdict(call.scope), "oldest": now - KEPT},
    )
    row = {
        **asdict(call.scope),
        **_answer(answer),
        "fingerprint": call.fingerprint,
        "reference": reference,
        "created_at": now,
    }
    if not tx.insert("idempotency", row, on_conflict="DO NOTHING"):
        raise IdempotencyConflict


def settle(tx: Tx, reference: str, answer: Message | ServiceError) -> None:
    """Write the answer of the open record with this reference, if there is one."""
    tx.execute(
        "UPDATE idempotency SET response = :response, status = :status"
        " WHERE reference = :reference AND response IS NULL AND status IS NULL",
        {**_answer(answer), "reference": reference},
    )


def settled(tx: Tx, reference: str) -> bytes | None:
    """The response that was written for this reference; None while it is open.

    Raises:
        ServiceError: the answer is a refusal.
    """
    row = tx.one(
        "SELECT response, status FROM idempotency WHERE reference = :reference",
        {"reference": reference},
    )
    if row is None or (row["response"] is None and row["status"] is None):
        return None
    if row["status"] is not None:
        raise ServiceError.from_status(Status.FromString(bytes(row["status"])))
    return bytes(row["response"])


async def commit(database: Database, fn: Callable[[Tx], M]) -> M:
    """Run the transaction of a command and record what it answers.

    Args:
        database: where.
        fn: has the effect and returns the response, or raises a refusal, which
            undoes its work, is recorded, and reaches the caller.
    """
    call = _current()

    def answered(tx: Tx) -> M:
        response = fn(tx)
        record(tx, response, call=call)
        return response

    try:
        return await database.write(answered)
    except ServiceError as error:
        if error.refusal and call is not None:
            refusal = error
            await database.write(lambda tx: record(tx, refusal, call=call))
        raise


def sweep(tx: Tx, now: float) -> int:
    """Remove the records that are too old; return how many."""
    return tx.execute("DELETE FROM idempotency WHERE created_at <= :oldest", {"oldest": now - KEPT})


def key() -> str | None:
    """The idempotency key of the call being handled."""
    call = _current()
    return None if call is None else call.scope.key


def _current() -> Idempotency | None:
    call = accord.current()
    return None if call is None else call.idempotency


def _answer(answer: Message | ServiceError | None) -> dict[str, object]:
    response = answer.SerializeToString() if isinstance(answer, Message) else None
    refusal = answer.to_status() if isinstance(answer, ServiceError) else None
    status = None if refusal is None else refusal.SerializeToString()
    return {"response": response, "status": status}
