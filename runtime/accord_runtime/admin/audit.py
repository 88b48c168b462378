"""The record of interventions: who, when, what, to which target, and why."""

import time
from dataclasses import asdict
from typing import Final

import accord
from accord.admin.mesh_service import Intervention
from accord.ops.v1 import audit_pb2 as pb
from accord.ops.v1.audit_pb2_grpc import AuditServiceServicer
from accord_runtime.database import Database, Row, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp

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

_AUDIT: Final = "SELECT id, at, principal, method, target, reason, before, after FROM audit"


def record(tx: Tx, done: Intervention) -> None:
    """Write down the intervention being handled, in the transaction that carries it out."""
    call = accord.current()
    assert call is not None  # An intervention is a call.
    tx.insert(
        "audit",
        {
            "id": uuid7(),
            "at": time.time(),
            "principal": call.actor,
            "method": call.method.removeprefix("/"),
            **asdict(done),
        },
    )


class AuditServicer(AuditServiceServicer):
    """The RPCs of `accord.ops.v1.AuditService`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAudit(
        self, request: pb.ListAuditRequest, context: Context
    ) -> pb.ListAuditResponse:
        """Lists interventions, newest first."""
        asked = Page(request, target=request.target)
        equal = {"target": request.target}
        rows, token = await self._database.read(
            lambda tx: asked.read(tx, _AUDIT, "id", equal=equal, newest_first=True)
        )
        return pb.ListAuditResponse(records=map(_message, rows), next_page_token=token)


def _message(row: Row) -> pb.AuditRecord:
    return pb.AuditRecord(audit_id=row.pop("id"), at=timestamp(row.pop("at")), **row)
