"""Deadlines: how long a call may take, across hops.

effective = min(caller's own timeout, contract timeout, timeout declared by the RPC being handled,
                what is left of the inherited deadline - hop reserve)

A deadline is an absolute time on a monotonic clock, in seconds, fixed once per call: gRPC's own
timeout is relative and would start afresh at every attempt. Sources: gRFC A31, Finagle `Deadline`.
"""

from typing import Final

MAX_HOP_RESERVE: Final = 0.020
"""Seconds. A nested call's answer must travel back before the caller's own deadline."""

HOP_RESERVE_SHARE: Final = 0.05
"""Share of the remaining time, so that a short deadline is not eaten by the reserve."""


def hop_reserve(remaining: float) -> float:
    """Seconds kept back from a nested call when `remaining` seconds are left. Never negative."""
    return max(0.0, min(MAX_HOP_RESERVE, HOP_RESERVE_SHARE * remaining))


def inherited(now: float, deadline: float) -> float:
    """The deadline that a nested call inherits from a call that ends at `deadline`."""
    return deadline - hop_reserve(deadline - now)


def effective(
    now: float,
    *,
    explicit: float | None = None,
    contract: float | None = None,
    declared: float | None = None,
    inherits: float | None = None,
) -> float | None:
    """The absolute deadline of a call that starts at `now`.

    `explicit`, `contract` and `declared` are seconds from now; `inherits` is the absolute deadline
    of the call being handled. None means that this bound does not exist; the answer is None when
    there is no bound at all. The answer is not later than any bound and may lie in the past.

    Raises ValueError if a bound is not a number.
    """
    earliest = None if inherits is None else inherited(now, inherits)
    for seconds in (explicit, contract, declared):
        if seconds is None:
            continue
        if seconds != seconds:
            raise ValueError("a timeout is not a number")
        if earliest is None or now + seconds < earliest:
            earliest = now + seconds
    if earliest != earliest:
        raise ValueError("a deadline is not a number")
    return earliest
