"""Turns the failure of a call into one sentence and an exit code."""

import grpc

from accord.errors import ServiceError
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode

_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_NO_ANSWER = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def explain(error: grpc.RpcError, service: str, address: str, key: str = "") -> CommandError:
    """What to tell the user.

    Args:
        error: the failed call.
        service: name of the service that was called.
        address: where.
        key: idempotency key of a call that changes something; empty for one that only reads.
    """
    failure = ServiceError.from_rpc(error)
    if failure.code in _NO_ANSWER and key:
        return CommandError(
            f"no answer from {service} ({failure.message}): it may have happened or not; to find "
            f"out, repeat the command with --key {key}",
            ExitCode.UNKNOWN_OUTCOME,
        )
    # A reason of its own tells that a service has answered, if only that it cannot do it now.
    if failure.code in _NO_ANSWER and failure.reason == failure.code.name:
        return CommandError(
            f"no answer from {service} at {address}; is the shop up? See: shopctl status",
            ExitCode.NOT_RUNNING,
        )
    if failure.code in _REFUSALS:
        details = "; ".join(f"{v.field}: {v.description}" for v in failure.violations)
        text = details or failure.message
        return CommandError(f"{service} refused: {failure.reason}: {text}", ExitCode.REFUSED)
    again = "" if failure.retry_after is None else f"; try again in {failure.retry_after:.1f} s"
    return CommandError(f"{service} failed: {failure.reason}: {failure.message}{again}")
