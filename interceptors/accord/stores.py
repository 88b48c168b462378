"""Idempotency records in SQL: the handler's own transaction writes the answer beside its effect.

So the record exists exactly when the effect does, whatever dies and when. `SqliteStore` keeps them
in a file, `DbApiStore` in PostgreSQL by any driver of DB-API 2.0 (PEP 249). The functions below are
for whoever has transactions of another kind, see `Tx`.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from accord.context import Idempotency, current
from accord.errors import IdempotencyConflict, ServiceError
from accord.interfaces import StoredAnswer
from accord.policies.idempotency import Scope

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
"""What makes the table. Statements are only ever appended."""

KEPT: Final = 7 * 24 * 3600.0
"""Seconds that an answer is kept: 7 days."""

SWEEP: Final = 3600.0
"""Seconds between two removals of what is too old."""

C = TypeVar("C")
"""A connection of DB-API 2.0: its cursors, `commit` and `close` are used."""

M = TypeVar("M", bound=Message)
Parameters = Mapping[str, object]  # as drivers take them


class Tx(Protocol):
    """An open transaction. SQL has `:name` parameters."""

    def execute(self, sql: str, params: Parameters, /) -> int:
        """Run a statement; how many rows it wrote."""
        ...

    def one(self, sql: str, params: Parameters, /) -> Mapping[str, Any] | None:  # by its columns
        """Run a statement; its first row, by the names of columns."""
        ...


def find(tx: Tx, scope: Scope, now: float) -> StoredAnswer | None:
    """The record of a scope, unless it is too old; `now` is Unix time in seconds."""
    row = tx.one(
        "SELECT fingerprint, response, status FROM idempotency WHERE principal = :principal"
        " AND method = :method AND key = :key AND created_at > :oldest",
        {**asdict(scope), "oldest": now - KEPT},
    )
    if row is None:
        return None
    # Some drivers give views of memory instead of bytes.
    response, status = (None if row[n] is None else bytes(row[n]) for n in ("response", "status"))
    pending = response is None and status is None
    return StoredAnswer(bytes(row["fingerprint"]), response, status, pending)


def record(
    tx: Tx,
    answer: Message | ServiceError | None,
    *,
    call: Idempotency | None = None,
    reference: str | None = None,
    now: float | None = None,
) -> None:
    """Write the answer of a call, in the transaction that has its effect.

    `answer` is the response, or the refusal; None for "still open": a repeat waits, and `settle`,
    which finds the record by its `reference`, writes the answer later. `call` is by default the one
    being handled; nothing is written for one without a key. `now` is Unix time in seconds.

    Raises:
        IdempotencyConflict: the same call was answered meanwhile by another process; this
            transaction must not commit.
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
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    sql = f"INSERT INTO idempotency ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING"
    if not tx.execute(sql, row):
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


def sweep(tx: Tx, now: float) -> int:
    """Remove the records that are too old; return how many."""
    return tx.execute("DELETE FROM idempotency WHERE created_at <= :oldest", {"oldest": now - KEPT})


def key() -> str | None:
    """The idempotency key of the call being handled."""
    call = _current()
    return None if call is None else call.scope.key


def _current() -> Idempotency | None:
    call = current()
    return None if call is None else call.idempotency


def _answer(answer: Message | ServiceError | None) -> dict[str, bytes | None]:
    response = answer.SerializeToString() if isinstance(answer, Message) else None
    status = answer.to_status().SerializeToString() if isinstance(answer, ServiceError) else None
    return {"response": response, "status": status}


class DbApiStore(Generic[C]):
    """Records in PostgreSQL, at its default isolation, by any driver of DB-API 2.0.

    For servers of `grpc.aio`, where a handler says `await asyncio.to_thread(store.commit, work)`,
    and of gRPC with threads, where it says `store.commit(work)`. Safe under threads.
    """

    _binary = "BYTEA"
    _begin = ""
    _parameter = r"%(\1)s"
    _alone = "SELECT pg_advisory_xact_lock(1684107116)"  # IF NOT EXISTS fails where two are at it

    def __init__(self, connect: Callable[[], C], *, clock: Callable[[], float] = time.time) -> None:
        """The table `idempotency` is made, unless it is there.

        `connect` gives a connection that is used by one thread and then closed, which gives that of
        a pool back: `lambda: psycopg.connect(url)`. `clock` is Unix time in seconds.
        """
        self._connect = connect
        self._clock = clock
        self._swept = -SWEEP
        with self._transaction() as (_, tx):
            tx.one(self._alone, {})
            for statement in MIGRATIONS:
                ddl = re.sub(r"CREATE (TABLE|INDEX)", r"CREATE \1 IF NOT EXISTS", statement)
                tx.execute(ddl.replace("BLOB", self._binary), {})

    def lookup(self, scope: Scope) -> StoredAnswer | None:
        """The record of this scope, or None if it was never used or has expired."""
        with self._transaction(writes=False) as (_, tx):
            return find(tx, scope, self._clock())

    def commit(self, work: Callable[[C], M]) -> M:
        """Run the transaction of the call being handled, and record what it answers.

        `work` has the effect, by the connection that it is given, and returns the response; or it
        raises a refusal, which undoes its work, is recorded, and reaches the caller. All other
        errors undo it and leave no record.

        Raises:
            IdempotencyConflict: the same call was answered meanwhile by another process, and this
                one has done nothing; to be left to the interceptor.
        """
        try:
            with self._transaction() as (connection, tx):
                response = work(connection)
                record(tx, response, now=self._clock())
                if self._clock() >= self._swept + SWEEP:
                    self._swept = self._clock()
                    sweep(tx, self._swept)
        except ServiceError as error:
            if error.refusal:
                with self._transaction() as (_, tx):
                    record(tx, error, now=self._clock())
            raise
        return response

    @contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[tuple[Any, Tx]]:  # see `C`
        connection: Any = self._connect()
        try:
            if writes and self._begin:
                connection.cursor().execute(self._begin)
            yield connection, _DbApiTx(connection, self._parameter)
            connection.commit()
        finally:
            connection.close()  # which undoes what is not committed


class SqliteStore(DbApiStore[sqlite3.Connection]):
    """Records in the SQLite file that has the effects, which several processes may use.

    Writers take turns: the transaction begins as IMMEDIATE, and waits for up to 30 s.
    """

    _binary = "BLOB"
    _begin = "BEGIN IMMEDIATE"
    _parameter = r":\1"
    _alone = "SELECT 1"

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        """As `DbApiStore`, of a file that is made unless it is there."""
        super().__init__(
            lambda: sqlite3.connect(path, timeout=30.0, isolation_level=None), clock=clock
        )


class _DbApiTx:
    """The transaction of a connection, as a `Tx`."""

    def __init__(self, connection: Any, parameter: str) -> None:
        self._connection = connection
        self._parameter = parameter

    def execute(self, sql: str, params: Parameters, /) -> int:
        return int(self._run(sql, params).rowcount)

    def one(self, sql: str, params: Parameters, /) -> Mapping[str, Any] | None:  # by its columns
        cursor = self._run(sql, params)
        row = cursor.fetchone()
        return row and dict(zip((column[0] for column in cursor.description), row, strict=True))

    def _run(self, sql: str, params: Parameters) -> Any:  # a cursor
        cursor = self._connection.cursor()
        cursor.execute(re.sub(r":(\w+)", self._parameter, sql), params)
        return cursor
