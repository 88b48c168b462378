"""Cutting output into lines, and the back-off between restarts."""

from hypothesis import given
from hypothesis import strategies as st

from shopctl.supervisor.process import Backoff, LineSplitter


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=40))
def test_how_it_arrives_does_not_matter(data: bytes, sizes: list[int]) -> None:
    """The lines are the same however the bytes were cut on their way."""
    data = data.replace(b"\r", b"")
    splitter, lines, rest = LineSplitter(), [], data
    for size in sizes:
        lines += splitter.feed(rest[:size])
        rest = rest[size:]
    lines += splitter.feed(rest) + splitter.finish()
    expected = data.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_memory_is_bounded(chunks: list[bytes]) -> None:
    """Without newlines, pieces come out and no more than one line is held back."""
    chunks = [chunk.replace(b"\n", b"x").replace(b"\r", b"x") for chunk in chunks]
    splitter, pieces, fed = LineSplitter(max_line=16), [], 0
    for chunk in chunks:
        pieces += splitter.feed(chunk)
        fed += len(chunk)
        assert fed - sum(map(len, pieces)) <= 16
    assert b"".join(pieces + splitter.finish()) == b"".join(chunks)


def test_carriage_returns_are_dropped() -> None:
    """Lines that end as on Windows lose that end."""
    assert LineSplitter().feed(b"a\r\nb\r\n") == [b"a", b"b"]


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
