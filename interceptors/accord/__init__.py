"""Accord: the service mesh in your contract.

    mesh = accord.Mesh("orders", targets={"payments": "127.0.0.1:50052"})
    payments = PaymentServiceStub(mesh.channel("payments"))
    server = mesh.server()

Names are imported when they are first used, so that `import accord` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accord.context import (
        CallContext,
        Idempotency,
        carry,
        current,
        detach,
        idempotency_key,
    )
    from accord.contract import (
        ContractError,
        EventPolicy,
        MethodPolicy,
        check_service,
        event_policy,
        method_policy,
    )
    from accord.errors import (
        Aborted,
        AlreadyExists,
        DeadlineExceeded,
        FailedPrecondition,
        IdempotencyConflict,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        Precondition,
        Resource,
        ResourceExhausted,
        ServiceError,
        Unavailable,
        failure_of,
    )
    from accord.interfaces import (
        FieldViolation,
        IdempotencyStore,
        StoredAnswer,
        SyncIdempotencyStore,
        Validator,
    )
    from accord.mesh import Mesh
    from accord.policies.idempotency import Scope, fingerprint
    from accord.server.state import Limits
    from accord.telemetry import trace_headers, trace_id, use_trace

__all__ = [
    "Aborted",
    "AlreadyExists",
    "CallContext",
    "ContractError",
    "DeadlineExceeded",
    "EventPolicy",
    "FailedPrecondition",
    "FieldViolation",
    "Idempotency",
    "IdempotencyConflict",
    "IdempotencyStore",
    "InvalidArgument",
    "Limits",
    "Mesh",
    "MethodPolicy",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Precondition",
    "Resource",
    "ResourceExhausted",
    "Scope",
    "ServiceError",
    "StoredAnswer",
    "SyncIdempotencyStore",
    "Unavailable",
    "Validator",
    "carry",
    "check_service",
    "current",
    "detach",
    "event_policy",
    "failure_of",
    "fingerprint",
    "idempotency_key",
    "method_policy",
    "trace_headers",
    "trace_id",
    "use_trace",
]

_HOMES = {
    "accord.context": "CallContext Idempotency carry current detach idempotency_key",
    "accord.contract": (
        "ContractError EventPolicy MethodPolicy check_service event_policy method_policy"
    ),
    "accord.errors": (
        "Aborted AlreadyExists DeadlineExceeded FailedPrecondition IdempotencyConflict"
        " InvalidArgument NotFound OutOfRange PermissionDenied Precondition Resource"
        " ResourceExhausted ServiceError Unavailable failure_of"
    ),
    "accord.interfaces": (
        "FieldViolation IdempotencyStore StoredAnswer SyncIdempotencyStore Validator"
    ),
    "accord.mesh": "Mesh",
    "accord.policies.idempotency": "Scope fingerprint",
    "accord.server.state": "Limits",
    "accord.telemetry": "trace_headers trace_id use_trace",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
