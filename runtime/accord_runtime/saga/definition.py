"""What a saga consists of."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from accord import ServiceError
from accord_runtime.database import Tx
from accord_runtime.work.table import Effect

Action = Callable[[str, str], Awaitable[Effect | None]]
"""Given the saga's id and the idempotency key for its calls: do it, and return what to write."""


class Kind(StrEnum):
    """What may happen to a step."""

    COMPENSATABLE = "compensatable"
    """It can be undone."""
    PIVOT = "pivot"
    """Once it has succeeded there is no way back; it may still refuse."""
    RETRIABLE = "retriable"
    """Behind the pivot: it is tried until it succeeds."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a saga. Both actions may be called again after a crash, with the same key."""

    name: str
    kind: Kind
    action: Action
    """Raises a refusal (`ServiceError.refusal`) to say "never", anything else to be tried again."""
    compensation: Action | None = None
    """Undoes the action. Must accept that there is nothing to undo, and that it comes first."""
    skipped: Callable[[Tx, str], None] | None = None
    """Written, given the saga's id, when an operator has done the step by other means and skips it;
    without it the step may not be skipped. Undoing a step may always be."""


def step_key(saga_id: str, step: str, way: str) -> str:
    """The idempotency key for the calls of a step; `way` is "do" or "undo"."""
    return f"{saga_id}/{step}/{way}"


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind of saga. A saga keeps the version that it began with."""

    name: str
    version: int
    steps: Sequence[Step]
    refused: Callable[[Tx, str, str, ServiceError], None]
    """Written when a step has refused: transaction, saga id, step, why."""
    undone: Callable[[Tx, str], None]
    """Written when everything has been undone: transaction, saga id."""
    cancelled: Callable[[Tx, str], None] = lambda tx, id: None  # noqa: A006
    """Written when an operator has it undone: transaction, saga id. May raise a refusal."""

    def __post_init__(self) -> None:
        """Check the order of kinds.

        Raises:
            ValueError: the steps have no safe way through.
        """
        order = [Kind.COMPENSATABLE, Kind.PIVOT, Kind.RETRIABLE]
        ranks = [order.index(step.kind) for step in self.steps]
        if not ranks or ranks != sorted(ranks) or ranks.count(1) > 1:
            raise ValueError("steps must be compensatable, then at most one pivot, then retriable")
