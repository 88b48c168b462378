"""Where a saga stands, and where it goes from there: pure.

Steps are compensatable up to the pivot, and retriable behind it (Garcia-Molina
and Salem, "Sagas", 1987; Richardson, "Microservices Patterns", ch. 4). A
position is written before its step is called, so a step whose outcome is not
known is always found, and undone if the saga turns back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from accord_runtime.saga.definition import Kind, Step


class Phase(StrEnum):
    """Which way a saga goes."""

    FORWARD = "forward"
    BACKWARD = "backward"
    DONE = "done"
    """Ended: every step has succeeded."""
    UNDONE = "undone"
    """Ended: every step that may have had an effect was undone."""
    ABANDONED = "abandoned"
    """Ended: an operator has given it up as it stood."""


@dataclass(frozen=True, slots=True)
class Position:
    """The step that is, or is about to be, called or undone."""

    phase: Phase
    step: int

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase not in (Phase.FORWARD, Phase.BACKWARD)


START = Position(Phase.FORWARD, 0)


def may_turn_back(steps: Sequence[Step], position: Position) -> bool:
    """Whether the saga can still be cancelled: before its pivot is called."""
    return position.phase is Phase.FORWARD and steps[position.step].kind is Kind.COMPENSATABLE


def succeeded(steps: Sequence[Step], position: Position, *, cancelled: bool) -> Position:
    """The step was done, or undone; `cancelled`: somebody has asked for the saga to be undone."""
    if position.phase is Phase.BACKWARD:
        return _back_from(steps, position.step - 1)
    if cancelled and may_turn_back(steps, position):
        return _back_from(steps, position.step)
    if position.step + 1 == len(steps):
        return Position(Phase.DONE, position.step)
    return Position(Phase.FORWARD, position.step + 1)


def refused(steps: Sequence[Step], position: Position) -> Position:
    """The step has answered that it will never do it, and has had no effect.

    Raises:
        ValueError: the step is behind the pivot, or a compensation: neither may refuse.
    """
    if position.phase is not Phase.FORWARD or steps[position.step].kind is Kind.RETRIABLE:
        raise ValueError(f"step {position.step} may not refuse in phase {position.phase}")
    return _back_from(steps, position.step - 1)


def turned_back(steps: Sequence[Step], position: Position) -> Position:
    """The saga was cancelled before the outcome of its step was known: that is undone as well."""
    return _back_from(steps, position.step)


def abandoned(position: Position) -> Position:
    """An operator has given the saga up: nothing more is done or undone.

    Raises:
        ValueError: it has ended.
    """
    if position.ended:
        raise ValueError(f"a saga that is {position.phase} cannot be abandoned")
    return Position(Phase.ABANDONED, position.step)


def _back_from(steps: Sequence[Step], step: int) -> Position:
    while step >= 0 and steps[step].compensation is None:
        step -= 1
    return Position(Phase.BACKWARD, step) if step >= 0 else Position(Phase.UNDONE, 0)
