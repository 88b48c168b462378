"""What a handler's exception says to its caller: a status, never UNKNOWN, never internals.

And whether the caller may try again: `grpc-retry-pushback-ms` carries the wait that the error asks
for, or -1 when the fault lies further down and has been retried there (only the tier nearest the
fault retries).
"""

import logging
import sys
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, TypeVar

import grpc
from google.rpc import status_pb2

from accord import error_details, errors
from accord._log import log
from accord.context import CallContext
from accord.errors import DEPENDENCY, EXHAUSTED
from accord.policies.retry import MARK, NEVER, PUSHBACK_KEY, format_pushback, parse_pushback
from accord.server.types import NO_ERROR, GrpcContext, Metadata, Status, Trailers
from accord.telemetry.propagation import trace_id

T = TypeVar("T")

_MAX_CHAIN: Final = 32

_PASSED_ON: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class Answered(Exception):
    """The call was answered before, with this status."""

    def __init__(self, status: bytes) -> None:
        super().__init__()
        self.status = status_pb2.Status.FromString(status)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a failed call is answered."""

    status: status_pb2.Status
    pushback: str | None
    """Value of the trailer `grpc-retry-pushback-ms`."""

    def trailers(self, before: Metadata | None) -> Trailers:
        """The trailers of the answer, `before` being those that the handler has set."""
        trailers = tuple(before or ())
        if self.pushback is not None:
            # Two values of this trailer would mean "never".
            trailers = tuple(item for item in trailers if item[0] != PUSHBACK_KEY)
            trailers += ((PUSHBACK_KEY, self.pushback),)
        return (*trailers, (errors.DETAILS_KEY, self.status.SerializeToString()))


def answer_to(
    error: BaseException,
    call: CallContext,
    translate: errors.Translate | None,
    grpc_context: GrpcContext | None = None,
) -> Answer:
    """What to answer an error of a handler with.

    A `ServiceError` says it itself. For any other, the code and the details count that the handler
    has set in `grpc_context`.
    """
    if isinstance(error, Answered):
        return Answer(error.status, None)
    try:
        meant = (
            _stated(error, call, grpc_context)
            or _meaning(error, call, translate)
            or _internal(error, call)
        )
        status = meant.to_status(call.service)
    except Exception as problem:  # of `translate`, or an error with parts that no status can hold
        meant = _internal(problem, call)
        status = meant.to_status(call.service)
    if exhausted(error):
        pushback: str | None = MARK
    else:
        pushback = None if meant.retry_after is None else format_pushback(meant.retry_after)
    return Answer(status, pushback)


def exhausted(error: BaseException | None) -> bool:
    """Whether an error, or one that it is chained to, is not to be retried further up.

    It has been retried further down, or it is a call whose server says so: gRPC makes the errors of
    some calls so late that the client cannot mark them.
    """
    waiting, looked_at = [error], 0
    while waiting and looked_at < _MAX_CHAIN:
        found = waiting.pop()
        if found is None:
            continue
        if getattr(found, EXHAUSTED, False) or _marked(found):
            return True
        looked_at += 1
        waiting += (found.__cause__, found.__context__)
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
    return False


def with_mark(trailers: Metadata) -> Trailers:
    """The trailers of an abort: while a nested call's error is handled, it is the reason for it."""
    found = tuple(trailers)
    if exhausted(sys.exception()) and all(key != PUSHBACK_KEY for key, _ in found):
        found += ((PUSHBACK_KEY, MARK),)
    return found


def _marked(error: BaseException) -> bool:
    """Whether it is the error of a call whose trailers forbid another attempt."""
    if not (isinstance(error, grpc.RpcError) and hasattr(error, "trailing_metadata")):
        return False
    said = (value for key, value in errors.trailers_of(error) if key == PUSHBACK_KEY)
    return parse_pushback(*said) == NEVER


def text(details: T) -> T | str:
    """A status message as far as there is room; gRPC would never end a call with one no UTF-8."""
    return error_details.cut(details) if isinstance(details, str) else details


def sendable(trailers: Metadata | None) -> Trailers:
    """Trailers as they are.

    Raises TypeError or UnicodeEncodeError for some with which gRPC would never end the call.
    """
    found = tuple(trailers or ())
    for key, value in found:
        if isinstance(value, str):
            value.encode()
        if not isinstance(key, str) or not isinstance(
            value, bytes if key.endswith("-bin") else (str, bytes)
        ):
            raise TypeError(f"{key!r} cannot be a trailer with a value of {type(value)}")
    return found


def known(code: Status) -> Status:
    """`code`, but INTERNAL instead of UNKNOWN, which tells a caller nothing."""
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNKNOWN.value[0]):
        return grpc.StatusCode.INTERNAL
    return code


def _meaning(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> errors.ServiceError | None:
    """What the caller may know of an error; None: nothing."""
    match error:
        case errors.ServiceError():
            return error
        case grpc.RpcError() if hasattr(error, "code"):
            return _nested(error, call)
        case errors.IdempotencyConflict():
            return errors.Aborted(
                "IDEMPOTENCY_CONFLICT", "another call with this key is at work", retry_after=1.0
            )
        case TimeoutError() if call.remaining() == 0:
            return errors.DeadlineExceeded(message="the deadline has passed")
        case Exception():
            return translate(error) if translate is not None else None
    return None


def _stated(
    error: BaseException, call: CallContext, grpc_context: GrpcContext | None
) -> errors.ServiceError | None:
    """What the handler has set before it failed; None: nothing, or its error says more."""
    if grpc_context is None or isinstance(error, errors.ServiceError):
        return None
    code = grpc_context.code()
    if code in NO_ERROR:
        return None
    found = errors.grpc_code(code) if isinstance(code, int) else code
    internal, details = _internal(error, call), details_of(grpc_context)
    return errors.ServiceError(
        found, found.name, details or internal.message, metadata=internal.metadata
    )


def details_of(grpc_context: GrpcContext) -> str:
    """The message that a handler has set; "" for none."""
    details = grpc_context.details()
    return details.decode(errors="replace") if isinstance(details, bytes) else details or ""


def _internal(error: BaseException, call: CallContext) -> errors.ServiceError:
    """INTERNAL with a reference under which the log has everything."""
    reference = token_hex(8)
    log(
        logging.ERROR,
        "unexpected error in a handler",
        error=error,
        reference=reference,
        method=call.method,
        trace_id=trace_id(),
    )
    return errors.ServiceError(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        f"internal error, reference {reference}",
        metadata={"reference": reference},
    )


def _nested(error: grpc.RpcError, call: CallContext) -> errors.ServiceError | None:
    """The failure of a nested call, as far as it is the caller's business."""
    code = error.code()
    dependency = getattr(error, DEPENDENCY, "").removeprefix("/") or "a dependency"
    if code is grpc.StatusCode.CANCELLED and call.remaining() == 0:
        return errors.DeadlineExceeded(message=f"the deadline passed while {dependency} was called")
    if code not in _PASSED_ON:
        return None
    found = errors.ServiceError.from_rpc(error)
    return errors.ServiceError(
        code,
        found.reason,
        f"{dependency}: {code.name}",
        metadata={"dependency": dependency},
        retry_after=found.retry_after,
    )
