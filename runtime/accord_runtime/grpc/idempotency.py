"""Idempotency records in a service's database: `accord.stores`, by its transactions.

The server interceptor looks a repeated call up (accord); the record is written
here, in the transaction that has the effect, so that it exists exactly when the
effect does. Business refusals are answers too and are kept; transient errors
never are.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

import accord
from accord import Scope, ServiceError, StoredAnswer
from accord.stores import KEPT as KEPT
from accord.stores import MIGRATIONS as MIGRATIONS
from accord.stores import find as find
from accord.stores import key as key
from accord.stores import record as record
from accord.stores import settle as settle
from accord.stores import settled as settled
from accord.stores import sweep as sweep
from accord_runtime.database import Database, Tx

M = TypeVar("M", bound=Message)


class SqlIdempotencyStore:
    """Where the server interceptor looks answers up (`accord.IdempotencyStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lookup(self, scope: Scope) -> StoredAnswer | None:
        """The answer of a call with this scope; pending while its outcome is open."""
        return await self._database.look_up(lambda tx: find(tx, scope, time.time()))


async def commit(database: Database, fn: Callable[[Tx], M | ServiceError]) -> M:
    """Run the transaction of a command and record what it answers.

    Args:
        database: where.
        fn: has the effect and returns the response, or raises a refusal, which
            undoes its work, is recorded, and reaches the caller. A refusal that is an effect
            is returned, and reaches the caller all the same.
    """
    handled = accord.current()
    call = None if handled is None else handled.idempotency

    def answered(tx: Tx) -> M | ServiceError:
        response = fn(tx)
        record(tx, response, call=call)
        return response

    try:
        answer = await database.write(answered)
    except ServiceError as error:
        if error.refusal and call is not None:
            refusal = error
            await database.write(lambda tx: record(tx, refusal, call=call))
        raise
    if isinstance(answer, ServiceError):
        raise answer
    return answer
