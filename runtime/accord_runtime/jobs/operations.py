"""The table of operations: what is written into it and read from it, all within transactions."""

from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from accord.errors import NotFound, Resource
from accord.ops.v1.operation_pb2 import Operation, OperationState
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import timestamp

MIGRATIONS: Final = [
    """
    CREATE TABLE operation (
        operation_id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        state BIGINT NOT NULL,
        operation BLOB NOT NULL,
        request BLOB NOT NULL,
        checkpoint BLOB NOT NULL,
        response BLOB NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX operation_state ON operation (state, kind)",
    "CREATE INDEX operation_expires ON operation (expires_at)",
]

KEPT: Final = 24 * 3600.0
"""Seconds after which an operation that has ended is removed, and one that has not fails."""

RUNNING: Final = OperationState.OPERATION_STATE_RUNNING


def insert(tx: Tx, kind: str, request: Message, now: float) -> Operation:
    """Write a new operation down."""
    operation = Operation(operation_id=uuid7(), kind=kind, created_at=timestamp(now))
    _change(operation, RUNNING, now)
    blobs = {"request": request.SerializeToString(), "checkpoint": b"", "response": b""}
    tx.insert("operation", {**_columns(operation), "kind": kind, **blobs})
    return operation


def running(tx: Tx, kind: str) -> int:
    """How many operations of a kind have not ended."""
    sql = "SELECT COUNT(*) FROM operation WHERE state = :state AND kind = :kind"
    return int(tx.value(sql, {"state": RUNNING, "kind": kind}))


def find(tx: Tx, operation_id: str, *, lock: bool = False) -> Row | None:
    """The row with this id; `lock` keeps others from changing it before the commit."""
    sql = "SELECT * FROM operation WHERE operation_id = :id" + (tx.for_update if lock else "")
    return tx.one(sql, {"id": operation_id})


def get(tx: Tx, operation_id: str, *, lock: bool = False) -> Operation:
    """The operation with this id, and its result.

    Raises:
        NotFound: there is none.
    """
    row = find(tx, operation_id, lock=lock)
    if row is None:
        raise NotFound(resource=Resource("accord.ops.v1.Operation", operation_id))
    operation = Operation.FromString(row["operation"])
    if row["response"]:
        operation.response.ParseFromString(row["response"])
    return operation


def page(tx: Tx, asked: Page, state: int) -> tuple[list[Operation], str]:
    """A page of operations, newest first, and the next token; in any state if that is 0."""
    sql = "SELECT operation_id, operation FROM operation"
    rows, token = asked.read(tx, sql, "operation_id", equal={"state": state}, newest_first=True)
    return [Operation.FromString(row["operation"]) for row in rows], token


def go_on(tx: Tx, operation: Operation, checkpoint: bytes, now: float) -> None:
    """Write a step down, and where the next one begins."""
    _change(operation, RUNNING, now)
    _write(tx, operation, ", checkpoint = :checkpoint", checkpoint=checkpoint)


def end(
    tx: Tx,
    operation: Operation,
    state: "OperationState.ValueType",
    now: float,
    response: Any | None = None,
) -> None:
    """Write an end down."""
    operation.done = True
    _change(operation, state, now)
    raw = b"" if response is None else response.SerializeToString()
    _write(tx, operation, ", response = :response, checkpoint = ''", response=raw)


def expired(tx: Tx, now: float, most: int = 100) -> list[Operation]:
    """Remove what has ended long ago; return some of what has not ended in time, locked."""
    values = {"now": now, "running": RUNNING, "most": most}
    tx.execute("DELETE FROM operation WHERE expires_at <= :now AND state <> :running", values)
    rows = tx.all(
        "SELECT operation FROM operation WHERE expires_at <= :now AND state = :running"
        f" LIMIT :most{tx.skip_locked}",
        values,
    )
    return [Operation.FromString(row["operation"]) for row in rows]


def _change(operation: Operation, state: "OperationState.ValueType", now: float) -> None:
    operation.state = state
    operation.sequence += 1
    operation.updated_at.CopyFrom(timestamp(now))
    began = operation.created_at.ToMicroseconds() / 1e6
    operation.expires_at.CopyFrom(timestamp((now if operation.done else began) + KEPT))


def _write(tx: Tx, operation: Operation, more: str, **values: object) -> None:
    tx.execute(
        "UPDATE operation SET state = :state, operation = :operation, expires_at = :expires_at"
        f"{more} WHERE operation_id = :operation_id",
        {**_columns(operation), **values},
    )


def _columns(operation: Operation) -> dict[str, object]:
    return {
        "operation_id": operation.operation_id,
        "state": int(operation.state),
        "operation": operation.SerializeToString(),
        "expires_at": operation.expires_at.ToMicroseconds() / 1e6,
    }
