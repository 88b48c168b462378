"""The saga's state machine, against every way a saga can go."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.saga import Definition, Kind, Step, state_machine
from accord_runtime.saga.state_machine import START, Phase, Position


async def nothing(saga_id: str, key: str) -> None:
    """A step that does nothing."""


def definition(kinds: list[Kind], undoable: list[bool]) -> Definition:
    steps = [
        Step(str(index), kind, nothing, nothing if can_be_undone else None)
        for index, (kind, can_be_undone) in enumerate(zip(kinds, undoable, strict=True))
    ]
    return Definition(
        "test", 1, steps, refused=lambda tx, saga, step, why: None, undone=lambda tx, saga: None
    )


@st.composite
def shapes(draw: st.DrawFn) -> Sequence[Step]:
    """Any definition that the machine accepts."""
    before = draw(st.integers(0, 4))
    pivot = draw(st.integers(0, 1))
    after = draw(st.integers(0 if before + pivot else 1, 3))
    kinds = [Kind.COMPENSATABLE] * before + [Kind.PIVOT] * pivot + [Kind.RETRIABLE] * after
    undoable = [draw(st.booleans()) for _ in range(before)] + [False] * (pivot + after)
    return definition(kinds, undoable).steps


class Run:
    """A saga that is driven to its end by the choices of a test."""

    def __init__(self, steps: Sequence[Step], data: st.DataObject) -> None:
        self.steps = steps
        self.position = START
        self.cancelled = False
        self.refused: int | None = None
        self.touched: list[int] = []
        """Steps that were called and may have had an effect, in order."""
        self.undone: list[int] = []
        while not self.position.ended:
            self.step(data)

    def step(self, data: st.DataObject) -> None:
        """One attempt: called, refused, or cancelled before or after its answer."""
        steps, position = self.steps, self.position
        if position.phase is Phase.BACKWARD:
            self.undone.append(position.step)
            self.position = state_machine.succeeded(steps, position, cancelled=self.cancelled)
            return
        if self.cancelled and state_machine.may_turn_back(steps, position):
            self.position = state_machine.turned_back(steps, position)
            return
        choices = ["ok"]
        if steps[position.step].kind is not Kind.RETRIABLE:
            choices.append("refused")
        if state_machine.may_turn_back(steps, position):
            choices += ["unknown, then cancelled", "cancelled meanwhile"]
        choice = data.draw(st.sampled_from(choices))
        if choice == "refused":
            self.refused = position.step
            self.position = state_machine.refused(steps, position)
            return
        self.touched.append(position.step)
        self.cancelled = self.cancelled or choice != "ok"
        if choice != "unknown, then cancelled":
            self.position = state_machine.succeeded(steps, position, cancelled=self.cancelled)


@given(shapes(), st.data())
def test_a_saga_is_carried_through_or_undone(steps: Sequence[Step], data: st.DataObject) -> None:
    """Whatever happens: all steps were done, or all that may have had an effect were undone."""
    run = Run(steps, data)
    if run.position.phase is Phase.DONE:
        assert run.touched == list(range(len(steps)))
        assert run.undone == []
    else:
        expected = [step for step in reversed(run.touched) if steps[step].compensation]
        assert run.undone == expected
        assert run.cancelled or run.refused is not None


@given(shapes(), st.data())
def test_there_is_no_way_back_behind_the_pivot(steps: Sequence[Step], data: st.DataObject) -> None:
    """Once the pivot has succeeded the saga ends as DONE, cancelled or not."""
    run = Run(steps, data)
    pivots = [i for i, step in enumerate(steps) if step.kind is not Kind.COMPENSATABLE]
    if pivots and pivots[0] in run.touched:
        assert run.position.phase is Phase.DONE


@given(shapes())
def test_compensations_and_retriable_steps_may_not_refuse(steps: Sequence[Step]) -> None:
    """A refusal that would leave the saga half done is an error, to be seen by an operator."""
    for step, kind in enumerate(each.kind for each in steps):
        backward = Position(Phase.BACKWARD, step)
        with pytest.raises(ValueError, match="may not refuse"):
            state_machine.refused(steps, backward)
        if kind is Kind.RETRIABLE:
            with pytest.raises(ValueError, match="may not refuse"):
                state_machine.refused(steps, Position(Phase.FORWARD, step))


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [Kind.PIVOT, Kind.PIVOT],
        [Kind.RETRIABLE, Kind.COMPENSATABLE],
        [Kind.PIVOT, Kind.COMPENSATABLE],
        [Kind.RETRIABLE, Kind.PIVOT],
    ],
)
def test_shapes_without_a_safe_way_are_refused(kinds: list[Kind]) -> None:
    """Steps that could be stuck between done and undone are no saga."""
    with pytest.raises(ValueError, match="compensatable"):
        definition(kinds, [True] * len(kinds))
