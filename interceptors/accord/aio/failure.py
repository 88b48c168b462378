"""What a handler's exception says to its caller: a status, never UNKNOWN, never internals."""

import asyncio
import logging
from secrets import token_hex
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import status_pb2

from accord import errors, telemetry
from accord.aio.client import DEPENDENCY
from accord.context import CallContext

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


def status_of(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> status_pb2.Status | None:
    """The status to answer with, or None if gRPC must see the exception itself."""
    match error:
        case Answered():
            return error.status
        case asyncio.CancelledError():
            task = asyncio.current_task()
            if task is not None and task.cancelling() > 0:
                return None  # the caller has gone, or the server stops
            # The handler cancelled itself: without a status the caller would hang (grpc #29248).
            return errors.ServiceError(
                grpc.StatusCode.CANCELLED, "CANCELLED", "the work was cancelled"
            ).to_status(call.service)
        case grpc.aio.AbortError():
            return None  # the status is out already
        case grpc.aio.UsageError():
            pass  # a bug of the handler
        case grpc.aio.BaseError():
            return None  # the transport's own: the caller has gone, or the server has stopped
        case errors.ServiceError():
            return error.to_status(call.service)
        case grpc.aio.AioRpcError():
            nested = _nested(error, call)
            if nested is not None:
                return nested.to_status(call.service)
        case errors.IdempotencyConflict():
            return errors.Aborted(
                "IDEMPOTENCY_CONFLICT", "another call with this key is at work", retry_after=1.0
            ).to_status(call.service)
        case TimeoutError() if call.remaining() == 0:
            return errors.DeadlineExceeded("the deadline has passed").to_status(call.service)
        case Exception():
            translated = translate(error) if translate is not None else None
            if translated is not None:
                return translated.to_status(call.service)
        case _:
            return None
    return internal(error, call)


def internal(error: BaseException, call: CallContext) -> status_pb2.Status:
    """INTERNAL with a reference under which the log has everything."""
    reference = token_hex(8)
    telemetry.log(
        logging.ERROR,
        "unexpected error in a handler",
        error=error,
        reference=reference,
        method=call.method,
        trace_id=telemetry.trace_id(),
    )
    return errors.ServiceError(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        f"internal error, reference {reference}",
        metadata={"reference": reference},
    ).to_status(call.service)


def _nested(error: Any, call: CallContext) -> errors.ServiceError | None:
    """The failure of a nested call, as far as it is the caller's business."""
    code = error.code()
    dependency = getattr(error, DEPENDENCY, "").removeprefix("/") or "a dependency"
    if code is grpc.StatusCode.CANCELLED and call.remaining() == 0:
        return errors.DeadlineExceeded(f"the deadline passed while {dependency} was called")
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
