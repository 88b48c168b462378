"""How commands fail: the one error that they raise on purpose, exit codes, and what is said."""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import grpc


class ExitCode(IntEnum):
    """How a command ended. Scripts may rely on it; a number never changes its meaning."""

    OK = 0
    """Done, and everything is as it should be."""
    FAILED = 1
    """It went wrong in a way no other code describes, or books did not reconcile."""
    USAGE = 2
    """The command line could not be understood."""
    NOT_SERVING = 3
    """The shop runs, but at least one of its processes is not serving."""
    NOT_RUNNING = 4
    """Nothing runs there, or the service could not be reached."""
    REFUSED = 5
    """The service understood and said no: a business answer. Repeating it will not help."""
    IN_USE = 6
    """Something else is in the way: a shop that runs already, or a port that is taken."""
    UNKNOWN_OUTCOME = 7
    """No answer in time. It may have happened; repeat with the same key to find out."""
    INTERRUPTED = 130
    """Ended at once by a (second) Ctrl-C."""


class CommandError(Exception):
    """Ends a command: printed as one line that says what is wrong and what to do.

    Args:
        message: one sentence or two, no newline.
        code: exit code of the process.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


_REFUSALS: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
    }
)
_NO_ANSWER: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


def explain(error: "grpc.RpcError", service: str, address: str, key: str = "") -> CommandError:
    """The failure of a call as one sentence and an exit code.

    `key` is the idempotency key of a call that changes something; empty for one that only reads.
    """
    from accord.errors import ServiceError  # brings gRPC, which not every command needs

    failure = ServiceError.from_rpc(error)
    code = failure.code.name
    if code in _NO_ANSWER and key:
        return CommandError(
            f"no answer from {service} ({failure.message}): it may have happened or not; to find "
            f"out, repeat the command with --key {key}",
            ExitCode.UNKNOWN_OUTCOME,
        )
    # A reason of its own tells that a service has answered, if only that it cannot do it now.
    if code in _NO_ANSWER and failure.reason == code:
        return CommandError(
            f"no answer from {service} at {address}; is the shop up? See: shopctl status",
            ExitCode.NOT_RUNNING,
        )
    if code in _REFUSALS:
        details = "; ".join(f"{v.field}: {v.description}" for v in failure.violations)
        text = details or failure.message
        if failure.reason == "OVERRIDE_REFUSED":
            why = "; ".join(violation.description for violation in failure.violations)
            text = f"{service} refuses the override: {why} (OVERRIDE_REFUSED)"
            return CommandError(text, ExitCode.REFUSED)
        return CommandError(f"{service} refused: {failure.reason}: {text}", ExitCode.REFUSED)
    again = "" if failure.retry_after is None else f"; try again in {failure.retry_after:.1f} s"
    return CommandError(f"{service} failed: {failure.reason}: {failure.message}{again}")
