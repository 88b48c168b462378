"""Pushback: how a server says when to come back, or that nobody should.

The trailer `grpc-retry-pushback-ms` (gRFC A6) is a signed 32-bit decimal in ASCII without needless
zeros: the next attempt is made after exactly that time. A negative or unparseable value, or more
than one, means "do not try again". google.rpc.RetryInfo says the same in the error's details; when
both are there the longer wait counts.
"""

import math
import re
from typing import Final

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailer of gRFC A6; native gRPC clients obey it too."""

NEVER: Final = math.inf
"""Seconds to wait that mean: do not try again. A status that carries it is called *marked*."""

MARK: Final = "-1"
"""Value of the trailer that means NEVER."""

_LARGEST: Final = 2**31 - 1
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")


def parse_pushback(*values: str | bytes) -> float | None:
    """Seconds that all values of the trailer ask for: None without one, NEVER if they forbid it."""
    if not values:
        return None
    value = values[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if len(values) > 1 or not _NUMBER.fullmatch(value) or int(value) > _LARGEST:
        return NEVER
    return int(value) / 1000


def format_pushback(seconds: float) -> str:
    """The trailer's value for a wait of so many seconds, rounded up to a millisecond, or NEVER."""
    if not seconds < NEVER or seconds < 0:
        return MARK
    # What is a whole millisecond stays one, in spite of binary fractions.
    return str(min(math.ceil(round(seconds * 1000, 6)), _LARGEST))


def told_to_wait(pushback: float | None, retry_info: float | None) -> float | None:
    """Seconds that a server asks for in either way; None: it does not say. Never negative.

    `retry_info` is the delay of a RetryInfo, in seconds; negative or not a number means NEVER.
    """
    if retry_info is not None and not retry_info >= 0:
        retry_info = NEVER
    if pushback is None or retry_info is None:
        return retry_info if pushback is None else pushback
    return max(pushback, retry_info)
