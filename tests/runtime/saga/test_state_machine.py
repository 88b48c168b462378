"""The saga's state machine, against every way a saga can go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.saga import state_machine
from accord_runtime.saga.state_machine import START, Kind, Phase, Position, Shape


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Any definition that the machine accepts."""
    before = draw(st.integers(0, 4))
    pivot = draw(st.integers(0, 1))
    after = draw(st.integers(0 if before + pivot else 1, 3))
    kinds = [Kind.COMPENSATABLE] * before + [Kind.PIVOT] * pivot + [Kind.RETRIABLE] * after
    undoable = [draw(st.booleans()) for _ in range(before)] + [False] * (pivot + after)
    return Shape(kinds, undoable)


class Run:
    """A saga that is driven to its end by the choices of a test."""

    def __init__(self, shape: Shape, data: st.DataObject) -> None:
        self.shape = shape
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
        shape, position = self.shape, self.position
        if position.phase is Phase.BACKWARD:
            self.undone.append(position.step)
            self.position = state_machine.succeeded(shape, position, cancelled=self.cancelled)
            return
        if self.cancelled and state_machine.may_turn_back(shape, position):
            self.position = state_machine.turned_back(shape, position)
            return
        choices = ["ok"]
        if shape.kinds[position.step] is not Kind.RETRIABLE:
            choices.append("refused")
        if state_machine.may_turn_back(shape, position):
            choices += ["unknown, then cancelled", "cancelled meanwhile"]
        choice = data.draw(st.sampled_from(choices))
        if choice == "refused":
            self.refused = position.step
            self.position = state_machine.refused(shape, position)
            return
        self.touched.append(position.step)
        self.cancelled = self.cancelled or choice != "ok"
        if choice != "unknown, then cancelled":
            self.position = state_machine.succeeded(shape, position, cancelled=self.cancelled)


@given(shapes(), st.data())
def test_a_saga_is_carried_through_or_undone(shape: Shape, data: st.DataObject) -> None:
    """Whatever happens: all steps were done, or all that may have had an effect were undone."""
    run = Run(shape, data)
    if run.position.phase is Phase.DONE:
        assert run.touched == list(range(len(shape.kinds)))
        assert run.undone == []
    else:
        expected = [step for step in reversed(run.touched) if shape.undoable[step]]
        assert run.undone == expected
        assert run.cancelled or run.refused is not None


@given(shapes(), st.data())
def test_there_is_no_way_back_behind_the_pivot(shape: Shape, data: st.DataObject) -> None:
    """Once the pivot has succeeded the saga ends as DONE, cancelled or not."""
    run = Run(shape, data)
    pivots = [step for step, kind in enumerate(shape.kinds) if kind is not Kind.COMPENSATABLE]
    if pivots and pivots[0] in run.touched:
        assert run.position.phase is Phase.DONE


@given(shapes())
def test_compensations_and_retriable_steps_may_not_refuse(shape: Shape) -> None:
    """A refusal that would leave the saga half done is an error, to be seen by an operator."""
    for step, kind in enumerate(shape.kinds):
        backward = Position(Phase.BACKWARD, step)
        with pytest.raises(ValueError, match="may not refuse"):
            state_machine.refused(shape, backward)
        if kind is Kind.RETRIABLE:
            with pytest.raises(ValueError, match="may not refuse"):
                state_machine.refused(shape, Position(Phase.FORWARD, step))


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
        Shape(kinds, [True] * len(kinds))
