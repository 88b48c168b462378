"""Counting and measuring."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopctl.load.result import OK, Outcome, Result


@given(st.lists(st.floats(1e-5, 3000), min_size=1, max_size=200), st.integers(0, 9))
def test_quantiles_are_right_to_three_digits(seconds: list[float], salt: int) -> None:
    """Each is the latency that so many calls did not exceed, and the longest is exact."""
    outcome = Outcome()
    random.Random(salt).shuffle(seconds)
    for each in seconds:
        outcome.add(OK, each)
    found, known = outcome.milliseconds(), sorted(seconds)
    assert found["max"] == pytest.approx(known[-1] * 1e3, abs=1e-3)
    for name, share in {"p50": 0.5, "p90": 0.9, "p99": 0.99}.items():
        # That so many calls did not exceed; where it falls between two, one of them.
        rank = share * len(known)
        either = {known[min(len(known) - 1, max(0, int(rank) + off))] for off in (-1, 0)}
        assert any(found[name] == pytest.approx(it * 1e3, rel=2e-3, abs=2e-3) for it in either)


def test_all_kinds_together() -> None:
    """Codes add up, and so do latencies; whoever is told nothing has zeros."""
    result = Result.of(["a", "b"])
    assert set(result.total().milliseconds().values()) == {0.0}
    result.kinds["a"].add(OK, 0.010)
    result.kinds["b"].add("UNAVAILABLE", 0.030)
    total = result.total()
    assert total.codes == {OK: 1, "UNAVAILABLE": 1}
    assert total.milliseconds()["max"] == pytest.approx(30, rel=1e-3)


def test_late_calls_are_counted() -> None:
    """What is made much later than it was due has missed the schedule."""
    result = Result.of(["a"])
    for lag in (-0.001, 0.0, 0.009, 0.011, 0.5):
        result.made(lag)
    assert (result.sent, result.late, result.worst) == (5, 2, 0.5)
