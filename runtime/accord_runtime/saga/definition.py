"""What a saga consists of."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from accord import ServiceError
from accord_runtime.database import Tx
from accord_runtime.saga.state_machine import Kind, Shape
from accord_runtime.work.table import Effect

Action = Callable[[str, str], Awaitable[Effect | None]]
"""Given the saga's id and the idempotency key for its calls: do it, and return what to write."""


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

    @property
    def shape(self) -> Shape:
        """What the state machine needs to know."""
        return Shape(
            [step.kind for step in self.steps],
            [step.compensation is not None for step in self.steps],
        )
