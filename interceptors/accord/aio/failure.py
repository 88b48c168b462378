"""What an exception of a handler in `grpc.aio` says to its caller."""

import asyncio

import grpc
import grpc.aio

from accord import errors, failure
from accord.context import CallContext
from accord.failure import Answer


def answer_to(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> Answer | None:
    """What to answer with, or None if gRPC must see the exception itself."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            return None  # the caller has gone, or the server stops
        # The handler cancelled itself: without a status the caller would hang (grpc #29248).
        cancelled = errors.ServiceError(
            grpc.StatusCode.CANCELLED, "CANCELLED", "the work was cancelled"
        )
        cancelled.__cause__ = error
        return failure.answer_to(cancelled, call, translate)
    if isinstance(error, failure.Answered):
        return failure.answer_to(error, call, translate)
    if not isinstance(error, Exception) or _is_transport(error):
        return None
    return failure.answer_to(error, call, translate)


def _is_transport(error: BaseException) -> bool:
    """AbortError: the status is out already. Else: the caller has gone or the server stopped."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)
