"""The back-off between restarts."""

from hypothesis import given
from hypothesis import strategies as st

from shopctl.backoff import Backoff


def test_doubles_to_the_ceiling() -> None:
    """0.2 s doubling to 10 s, as documented."""
    backoff = Backoff()
    delays = [backoff.next_delay(0.0) for _ in range(8)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_starts_again_after_health() -> None:
    """A child that was healthy for 30 s starts again at the first delay, one for 29 s does not."""
    backoff = Backoff()
    backoff.next_delay(0.0)
    assert backoff.next_delay(29.9) == 0.4
    assert backoff.next_delay(30.0) == 0.2
    assert backoff.next_delay(0.0) == 0.4


@given(st.lists(st.floats(0, 100)))
def test_stays_within_bounds(healthy: list[float]) -> None:
    """Whatever happened, the delay is between the first and the ceiling."""
    backoff = Backoff()
    assert all(0.2 <= backoff.next_delay(seconds) <= 10.0 for seconds in healthy)
