"""Looks that are due together."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.ticks import until_next


@given(now=st.floats(0, 1e7), seconds=st.sampled_from([0.25, 0.5, 1.0, 5.0, 10.0, 60.0]))
def test_looks_of_any_process_are_due_at_the_same_moments(now: float, seconds: float) -> None:
    """Never later than after that long, and at a multiple of it, whenever one began to wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        wait = until_next(seconds)
    assert 0 < wait <= seconds
    assert (now + wait) / seconds == pytest.approx(round((now + wait) / seconds), abs=1e-6)
