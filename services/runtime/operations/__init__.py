"""What the operator of a service may see and do: parked work, sagas, and the record of it.

The contracts are `accord.ops.v1`. Every service serves WorkService and
AuditService, and SagaService if it has sagas. An intervention, its audit record
and the answer to its idempotency key commit together.
"""

from collections.abc import Callable
from typing import Final

import grpc

from accord.ops.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from accord.ops.v1.saga_pb2_grpc import add_SagaServiceServicer_to_server
from accord.ops.v1.work_pb2_grpc import add_WorkServiceServicer_to_server
from services.runtime.database import Database
from services.runtime.executor import Executor
from services.runtime.operations.audit import MIGRATIONS, AuditServicer
from services.runtime.operations.sagas import SagaServicer
from services.runtime.operations.work import WorkServicer
from services.runtime.saga import Sagas

__all__ = ["CONTRACTS", "MIGRATIONS", "SAGA_CONTRACT", "serve"]

CONTRACTS: Final = ("accord.ops.v1.WorkService", "accord.ops.v1.AuditService")
"""What every service serves."""

SAGA_CONTRACT: Final = "accord.ops.v1.SagaService"
"""What a service with sagas serves, too."""


def serve(
    server: grpc.aio.Server,
    database: Database,
    executor: Executor,
    sagas: Sagas | None,
    clock: Callable[[], float],
) -> tuple[str, ...]:
    """Add the operator's services to a server, and return their contracts."""
    add_WorkServiceServicer_to_server(WorkServicer(database, executor, clock), server)
    add_AuditServiceServicer_to_server(AuditServicer(database), server)
    if sagas is None:
        return CONTRACTS
    add_SagaServiceServicer_to_server(SagaServicer(database, executor, sagas, clock), server)
    return (*CONTRACTS, SAGA_CONTRACT)
