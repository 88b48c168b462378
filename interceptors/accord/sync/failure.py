"""What an exception of a handler in a thread says to its caller."""

import grpc

from accord import errors, failure
from accord.context import CallContext
from accord.failure import Answer


def answer_to(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> Answer | None:
    """What to answer with, or None if gRPC must see the exception itself."""
    if isinstance(error, failure.Answered):
        return failure.answer_to(error, call, translate)
    if not isinstance(error, Exception) or caller_has_gone(error):
        return None
    return failure.answer_to(error, call, translate)


def caller_has_gone(error: BaseException) -> bool:
    """Whether this is what gRPC raises when there is nobody to talk to: an error without status."""
    return isinstance(error, grpc.RpcError) and not hasattr(error, "code")
