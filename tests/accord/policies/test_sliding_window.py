"""The sliding window."""

from hypothesis import given
from hypothesis import strategies as st

from accord.policies.sliding_window import BUCKETS, Window

LENGTH = 10.0


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
    )
)
def test_holds_what_lies_in_the_window(steps: list[tuple[float, int, int]]) -> None:
    """It holds all of the last nine tenths of its length and nothing older than its length."""
    window, now = Window(LENGTH), 0.0
    log: list[tuple[float, int, int]] = []
    for pause, calls, marks in steps:
        now += pause
        window.add(now, calls, marks)
        log.append((now, calls, marks))
        recent = [entry for entry in log if now - entry[0] < LENGTH * (1 - 1 / BUCKETS) - 1e-9]
        all_of_it = [entry for entry in log if now - entry[0] <= LENGTH + 1e-9]
        for column, held in ((1, window.calls), (2, window.marks)):
            assert sum(e[column] for e in recent) <= held <= sum(e[column] for e in all_of_it)


def test_time_does_not_go_back() -> None:
    """A time before the latest counts as the latest, so that no count is lost or negative."""
    window = Window(LENGTH)
    window.add(100.0, 1, 0)
    window.add(50.0, 1, 1)
    assert (window.calls, window.marks) == (2, 1)
    window.advance(109.9)
    assert (window.calls, window.marks) == (2, 1)
    window.advance(110.0)
    assert (window.calls, window.marks) == (0, 0)
