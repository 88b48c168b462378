"""Outcome: which results of an attempt count against its target.

Failures are UNAVAILABLE, INTERNAL, UNKNOWN and DATA_LOSS; DEADLINE_EXCEEDED when the attempt had at
least half of its contract time; RESOURCE_EXHAUSTED without a pushback, for a server that says when
to come back is at work. Neutral are the caller's own cancellation and mistakes, and an error with
pushback -1, which tells of a fault further down. All else, NOT_FOUND and its like, is an answer.
"""

from enum import Enum
from typing import Final

from accord.policies.retry import NEVER
from accord.policies.types import Code

_FAILURES: Final = frozenset({Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})


class Outcome(Enum):
    """What an attempt says about its target."""

    SUCCESS = "success"
    """It answered."""
    FAILURE = "failure"
    NEUTRAL = "neutral"
    """Nothing: a probe that ends so gives its place to the next caller."""


def outcome_of(
    code: Code,
    *,
    pushback: float | None = None,
    given: float | None = None,
    contract: float | None = None,
    own: bool = False,
) -> Outcome:
    """What an attempt that ended with `code` says about its target.

    A business answer (NOT_FOUND, FAILED_PRECONDITION, ...) is an answer, so it is a success.

    Args:
        code: its status.
        pushback: seconds that the server asked to wait; NEVER for a marked error, which tells of a
            fault further down; None if it did not say.
        given: seconds that the attempt had; None: no bound.
        contract: seconds that the contract gives to an attempt; None: it does not say.
        own: whether the caller's own side ended it: it cancelled, or asked for what cannot be.
    """
    if code is Code.OK:
        return Outcome.SUCCESS
    if own or code is Code.CANCELLED or pushback == NEVER:
        return Outcome.NEUTRAL
    if code in _FAILURES:
        return Outcome.FAILURE
    if code is Code.RESOURCE_EXHAUSTED:
        return Outcome.FAILURE if pushback is None else Outcome.NEUTRAL
    if code is Code.DEADLINE_EXCEEDED:
        # Without half of its time it was the caller who was late, not the target.
        enough = contract is not None and (given is None or given >= contract / 2)
        return Outcome.FAILURE if enough else Outcome.NEUTRAL
    return Outcome.SUCCESS
