"""What the operator of a service may see and do: parked work, sagas, traces, and the record.

The contracts are `accord.ops.v1`. Every service serves WorkService, AuditService, TraceService and
HealthService, and SagaService if it has sagas. An intervention, its audit record and the answer to
its idempotency key commit together.
"""

from accord.ops.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from accord.ops.v1.health_pb2_grpc import add_HealthServiceServicer_to_server
from accord.ops.v1.saga_pb2_grpc import add_SagaServiceServicer_to_server
from accord.ops.v1.trace_pb2_grpc import add_TraceServiceServicer_to_server
from accord.ops.v1.work_pb2_grpc import add_WorkServiceServicer_to_server
from accord_runtime.admin.audit import MIGRATIONS, AuditServicer, record
from accord_runtime.admin.event_edges import event_edges
from accord_runtime.admin.health import Health
from accord_runtime.admin.sagas import SagaServicer
from accord_runtime.admin.traces import TraceServicer
from accord_runtime.admin.work import WorkServicer
from accord_runtime.grpc.operator_contracts import CONTRACTS, SAGA_CONTRACT, TAKES_CALLS
from accord_runtime.service import Runtime

__all__ = [
    "CONTRACTS",
    "MIGRATIONS",
    "SAGA_CONTRACT",
    "TAKES_CALLS",
    "event_edges",
    "record",
    "serve",
]


def serve(runtime: Runtime, health: Health) -> tuple[str, ...]:
    """Add the operator's services to a server, and return their contracts."""
    server, database = runtime.server, runtime.database
    executor = runtime.executor
    add_WorkServiceServicer_to_server(
        WorkServicer(database, executor, [health.outbox, *runtime.outgoing]), server
    )
    add_AuditServiceServicer_to_server(AuditServicer(database), server)
    traces = TraceServicer(database, runtime.telemetry.spans)
    add_TraceServiceServicer_to_server(traces, server)
    add_HealthServiceServicer_to_server(health, server)
    if runtime.sagas is None:
        return CONTRACTS
    sagas = SagaServicer(database, executor, runtime.sagas)
    add_SagaServiceServicer_to_server(sagas, server)
    return (*CONTRACTS, SAGA_CONTRACT)
