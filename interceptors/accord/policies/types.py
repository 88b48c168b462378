"""What several policies speak of: status codes, priorities, refusals, and numbers sent as text."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """A gRPC status code: the names and numbers of `grpc.StatusCode`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


MAX_DIGITS: Final = 9


def small_number(value: str | bytes | None, digits: int = MAX_DIGITS) -> int | None:
    """The number that this text of at most so many decimal digits is; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= digits:
        return int(value)
    return None


class Priority(IntEnum):
    """Importance of a call when there is too much work. Smaller is served first."""

    CRITICAL = 1
    DEFAULT = 2
    SHEDDABLE = 3


@dataclass(frozen=True, slots=True)
class Refused:
    """The call is not admitted. It is worth another try after `retry_after` seconds."""

    retry_after: float
