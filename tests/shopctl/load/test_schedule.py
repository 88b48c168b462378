"""When calls are due."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopctl.load.schedule import arrivals

SHARES = {"a": 3, "b": 1}


@given(st.floats(0.1, 1000), st.floats(0, 20), st.integers())
def test_calls_are_due_evenly(rate: float, seconds: float, seed: int) -> None:
    """As many as rate and time make, one at least, each as long after the one before."""
    found = list(arrivals(rate, seconds, SHARES, seed))
    assert len(found) == max(1, round(rate * seconds))
    assert found[0].at == 0
    assert all(0 <= each.at <= max(seconds, 1 / rate) for each in found)
    for first, second in pairwise(found):
        assert second.at - first.at == pytest.approx(1 / rate)


@given(st.integers())
def test_the_mix_is_as_asked(seed: int) -> None:
    """Kinds are drawn by their shares, and the same seed draws the same."""
    found = [each.kind for each in arrivals(1000, 2, SHARES, seed)]
    assert found == [each.kind for each in arrivals(1000, 2, SHARES, seed)]
    assert 0.65 < Counter(found)["a"] / len(found) < 0.85
    assert {each.kind for each in arrivals(10, 1, {"a": 1, "b": 0}, seed)} == {"a"}
