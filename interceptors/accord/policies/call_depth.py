"""Depth guard: a bound on chains of synchronous calls.

A call from the edge has depth 0 and every nested call one more, carried under `accord-depth`. A
method refuses calls deeper than its contract's `max_depth`: each synchronous hop multiplies failure
and adds latency. Events begin again at 0: nobody waits for them.
"""

from typing import Final

from accord.policies.types import small_number

DEPTH_KEY: Final = "accord-depth"
"""Metadata: synchronous hops between the edge and the call."""

TOO_DEEP: Final = "CALL_TOO_DEEP"
"""ErrorInfo reason of a refusal, which is FAILED_PRECONDITION: it fails the same way every time."""

DEEPEST: Final = 64
"""A larger depth is not told apart."""


def read_depth(value: str | bytes) -> int | None:
    """The depth that a caller claims; None for anything that is not a small number."""
    depth = small_number(value)
    return None if depth is None else min(depth, DEEPEST)


def nested(depth: int) -> int:
    """The depth of a call that is made while one of `depth` is handled."""
    return min(depth + 1, DEEPEST)


def too_deep(depth: int, max_depth: int) -> bool:
    """Whether a method with this `max_depth` refuses a call of `depth`."""
    return depth > max_depth
