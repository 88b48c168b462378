"""Cutting output into lines."""

from hypothesis import given
from hypothesis import strategies as st

from shopctl.lines import LineSplitter


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
