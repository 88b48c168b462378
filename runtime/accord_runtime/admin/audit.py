"""The record of interventions: who, when, what, to which target, and why."""

from typing import Any, Final

import accord
from accord.context import ANONYMOUS
from accord.ops.v1 import audit_pb2 as pb
from accord.ops.v1.audit_pb2_grpc import AuditServiceServicer
from accord_runtime.admin.stamps import stamp
from accord_runtime.database import Database, Row, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import decode_token, encode_token, page_size

MIGRATIONS: Final = [
    """
    CREATE TABLE audit (
        id TEXT NOT NULL PRIMARY KEY,
        at DOUBLE PRECISION NOT NULL,
        principal TEXT NOT NULL,
        method TEXT NOT NULL,
        target TEXT NOT NULL,
        reason TEXT NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL
    )
    """,
    "CREATE INDEX audit_target ON audit (target, id)",
]


def record(tx: Tx, *, target: str, reason: str, before: str, after: str, now: float) -> None:
    """Write down the intervention being handled, in the transaction that carries it out."""
    call = accord.current()
    tx.execute(
        "INSERT INTO audit (id, at, principal, method, target, reason, before, after)"
        " VALUES (:id, :at, :principal, :method, :target, :reason, :before, :after)",
        {
            "id": uuid7(),
            "at": now,
            "principal": ANONYMOUS if call is None else call.principal,
            "method": "" if call is None else call.method.removeprefix("/"),
            "target": target,
            "reason": reason,
            "before": before,
            "after": after,
        },
    )


def page(tx: Tx, *, before: str | None, most: int, target: str) -> list[pb.AuditRecord]:
    """Up to `most` records, newest first, beginning before a record's id."""
    rows = tx.all(
        "SELECT id, at, principal, method, target, reason, before, after FROM audit"
        f" WHERE id < :before {'AND target = :target' if target else ''}"
        " ORDER BY id DESC LIMIT :most",
        # "g" sorts behind every hexadecimal id.
        {"before": "g" if before is None else before, "target": target, "most": most},
    )
    return [_message(row) for row in rows]


class AuditServicer(AuditServiceServicer):
    """The RPCs of `accord.ops.v1.AuditService`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAudit(self, request: pb.ListAuditRequest, context: Any) -> pb.ListAuditResponse:
        """Lists interventions, newest first."""
        filters = {"target": request.target}
        before = decode_token(filters, request.page_token)
        size = page_size(request.page_size)
        records = await self._database.read(
            lambda tx: page(tx, before=before, most=size + 1, target=request.target)
        )
        more = len(records) > size
        token = encode_token(filters, records[size - 1].audit_id) if more else ""
        return pb.ListAuditResponse(records=records[:size], next_page_token=token)


def _message(row: Row) -> pb.AuditRecord:
    return pb.AuditRecord(
        audit_id=row["id"],
        at=stamp(row["at"]),
        principal=row["principal"],
        method=row["method"],
        target=row["target"],
        reason=row["reason"],
        before=row["before"],
        after=row["after"],
    )
