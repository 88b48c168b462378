"""What is resumed, when, and for how long: the state machine."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.policies.resume import SLOW_CONSUMER, Drop, ResumeLimits, Resumption
from accord.policies.retry import NEVER
from accord.policies.types import Code
from tests.accord.policies.kit import Clock

AWAY = Drop(Code.UNAVAILABLE)


def resumption(token: int = 0, *, random: float = 0.5, patience: float = 60.0) -> Any:
    """A state machine and its clock."""
    clock = Clock()
    limits = ResumeLimits(patience=patience)
    return Resumption(token, limits=limits, clock=clock, random=lambda: random), clock


@given(
    head=st.integers(1, 60),
    start=st.integers(0, 20),
    cuts=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 3)), max_size=20),
)
def test_no_gap_and_no_duplicate(head: int, start: int, cuts: list[tuple[int, int]]) -> None:
    """Whatever the cuts, and even if a server repeats old messages, each token comes once."""
    machine, _ = resumption(start)
    got: list[int] = []
    for count, overlap in cuts:
        # An attempt answers from its token on; a careless server repeats a few before it.
        first = max(start + 1, machine.token + 1 - (overlap if machine.attempt > 1 else 0))
        sent = range(first, min(head, first + count) + 1)
        got += [token for token in sent if machine.delivered(token)]
        assert machine.dropped(AWAY) is not None
    got += [token for token in range(machine.token + 1, head + 1) if machine.delivered(token)]
    assert list(range(start + 1, max(head, start) + 1)) == got


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 5),
            st.floats(0, 0.999),
            st.none() | st.floats(0, 3) | st.just(NEVER),
        ),
        min_size=1,
        max_size=80,
    )
)
def test_waiting_is_bounded(steps: list[tuple[bool, float, float, float | None]]) -> None:
    """Waits are jittered, or as long as the server says; without progress they end in time."""
    clock = Clock()
    draw = 0.0
    limits = ResumeLimits(patience=10.0)
    machine = Resumption(0, limits=limits, clock=clock, random=lambda: draw)
    token, since = 0, 0.0
    failures = 0
    for progress, attempt_takes, draw, told in steps:  # noqa: B007 - the machine draws it
        clock.now += attempt_takes
        if progress:
            token += 1
            assert machine.delivered(token)
            failures = 0
        if failures == 0:
            since = clock.now
        wait = machine.dropped(Drop(Code.UNAVAILABLE, told=told))
        least = told or 0.0
        if limits.patience - (clock.now - since) <= least:
            assert wait is None
            return
        assert wait is not None
        ceiling = min(limits.max_backoff, limits.first_backoff * 2.0**failures)
        assert least <= wait <= max(ceiling, least)
        assert clock.now + wait <= since + limits.patience + 1e-9
        failures += 1
        clock.now += wait


@pytest.mark.parametrize(
    ("drop", "resumes"),
    [
        (AWAY, True),
        (Drop(Code.UNAVAILABLE, reason="STREAM_MAX_LIFETIME"), True),
        (Drop(Code.ABORTED, reason=SLOW_CONSUMER), True),
        (Drop(Code.ABORTED, reason="LOST_RACE"), False),
        (Drop(Code.CANCELLED), True),
        (Drop(Code.INTERNAL, transport=True), True),
        (Drop(Code.INTERNAL), False),
        (Drop(Code.DEADLINE_EXCEEDED, lifetime=True), True),
        (Drop(Code.DEADLINE_EXCEEDED), False),
        (Drop(Code.OUT_OF_RANGE), False),
        (Drop(Code.NOT_FOUND), False),
        (Drop(Code.UNAUTHENTICATED), False),
        (Drop(Code.UNAVAILABLE, told=NEVER), False),
        (Drop(Code.UNAVAILABLE, told=59.0), True),
        (Drop(Code.UNAVAILABLE, told=61.0), False),
    ],
)
def test_what_is_worth_resuming(drop: Drop, resumes: bool) -> None:
    """Only drops that are nobody's decision, or invite to come back, are resumed."""
    machine, _ = resumption()
    assert resumes == (machine.dropped(drop) is not None)


def test_quiet_stream_keeps_its_patience() -> None:
    """A stream that was accepted and lived for a while counts as progress without a message."""
    machine, clock = resumption(patience=10)
    for _ in range(100):
        machine.opened()
        clock.now += 6
        assert machine.dropped(AWAY) is not None


def test_accepting_and_dropping_is_no_progress() -> None:
    """A server that accepts and drops at once uses the patience up."""
    machine, clock = resumption(patience=10, random=0.999)
    waited = 0.0
    for _ in range(1000):
        machine.opened()
        wait = machine.dropped(AWAY)
        if wait is None:
            break
        clock.now += wait
        waited += wait
    else:
        raise AssertionError("it has never given up")
    assert waited <= 10
