"""Writing a pushback, and the longer of two; reading one is in the vectors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.policies.retry import MARK, NEVER, format_pushback, parse_pushback, told_to_wait


@given(st.floats(0, 1e6))
def test_what_is_written_can_be_read(seconds: float) -> None:
    """A client waits at least as long as the server meant, and at most a millisecond longer."""
    found = parse_pushback(format_pushback(seconds))
    assert found is not None
    assert seconds - 1e-6 <= found <= seconds + 0.0011


@given(st.integers(0, 2**31 - 1))
def test_whole_milliseconds_stay(milliseconds: int) -> None:
    """A whole number of milliseconds is written as it is."""
    assert str(milliseconds) == format_pushback(milliseconds / 1000)


@pytest.mark.parametrize("seconds", [NEVER, -0.001, -1.0, math.nan])
def test_never_is_the_mark(seconds: float) -> None:
    """What cannot be waited for is written as -1, which native gRPC clients obey too."""
    assert format_pushback(seconds) == MARK
    assert parse_pushback(MARK) == NEVER


def test_too_long_is_capped() -> None:
    """A wait beyond 32 bits of milliseconds stays a wait."""
    assert format_pushback(1e12) == "2147483647"


@pytest.mark.parametrize(
    ("pushback", "retry_info", "expected"),
    [
        (None, None, None),
        (1.0, None, 1.0),
        (None, 2.0, 2.0),
        (1.0, 2.0, 2.0),
        (2.0, 1.0, 2.0),
        (NEVER, 1.0, NEVER),
        (None, -1.0, NEVER),
        (1.0, -1.0, NEVER),
        (1.0, math.nan, NEVER),
        (None, 0.0, 0.0),
    ],
)
def test_the_longer_wait_counts(
    pushback: float | None, retry_info: float | None, expected: float | None
) -> None:
    """Trailer and RetryInfo are both obeyed."""
    assert expected == told_to_wait(pushback, retry_info)
