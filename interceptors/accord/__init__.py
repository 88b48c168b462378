"""Accord: the service mesh in your contract.

    mesh = accord.Mesh("orders", targets={"payments": "127.0.0.1:9052"})
    payments = PaymentServiceStub(mesh.channel("payments"))
    server = mesh.server()

Names are imported when they are first used, so that `import accord` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accord.context import CallContext as CallContext
    from accord.context import Idempotency as Idempotency
    from accord.context import cache_for as cache_for
    from accord.context import carry as carry
    from accord.context import current as current
    from accord.context import deadline as deadline
    from accord.context import detach as detach
    from accord.context import idempotency_key as idempotency_key
    from accord.context import shows as shows
    from accord.contract import ContractError as ContractError
    from accord.contract import EventPolicy as EventPolicy
    from accord.contract import MethodPolicy as MethodPolicy
    from accord.contract import check_service as check_service
    from accord.contract import event_policy as event_policy
    from accord.contract import method_policy as method_policy
    from accord.errors import Aborted as Aborted
    from accord.errors import AlreadyExists as AlreadyExists
    from accord.errors import DeadlineExceeded as DeadlineExceeded
    from accord.errors import FailedPrecondition as FailedPrecondition
    from accord.errors import IdempotencyConflict as IdempotencyConflict
    from accord.errors import InvalidArgument as InvalidArgument
    from accord.errors import NotFound as NotFound
    from accord.errors import OutOfRange as OutOfRange
    from accord.errors import PermissionDenied as PermissionDenied
    from accord.errors import Precondition as Precondition
    from accord.errors import Resource as Resource
    from accord.errors import ResourceExhausted as ResourceExhausted
    from accord.errors import ServiceError as ServiceError
    from accord.errors import Unauthenticated as Unauthenticated
    from accord.errors import Unavailable as Unavailable
    from accord.errors import failure_of as failure_of
    from accord.interfaces import FieldViolation as FieldViolation
    from accord.interfaces import IdempotencyStore as IdempotencyStore
    from accord.interfaces import StoredAnswer as StoredAnswer
    from accord.interfaces import SyncIdempotencyStore as SyncIdempotencyStore
    from accord.interfaces import Validator as Validator
    from accord.mesh import Mesh as Mesh
    from accord.policies.idempotency import Scope as Scope
    from accord.policies.idempotency import fingerprint as fingerprint
    from accord.server.state import Limits as Limits
    from accord.telemetry import trace_headers as trace_headers
    from accord.telemetry import trace_id as trace_id
    from accord.telemetry import use_trace as use_trace

_HOMES = {
    "accord.context": (
        "CallContext Idempotency cache_for carry current deadline detach idempotency_key shows"
    ),
    "accord.contract": (
        "ContractError EventPolicy MethodPolicy check_service event_policy method_policy"
    ),
    "accord.errors": (
        "Aborted AlreadyExists DeadlineExceeded FailedPrecondition IdempotencyConflict"
        " InvalidArgument NotFound OutOfRange PermissionDenied Precondition Resource"
        " ResourceExhausted ServiceError Unauthenticated Unavailable failure_of"
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
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
