"""The depth guard."""

import pytest

from accord.policies.call_depth import DEEPEST, nested, read_depth, too_deep


@pytest.mark.parametrize(
    ("depth", "max_depth", "refused"),
    [(0, 0, False), (1, 0, True), (2, 2, False), (3, 2, True), (DEEPEST, 8, True)],
)
def test_deeper_than_the_contract_is_refused(depth: int, max_depth: int, refused: bool) -> None:
    """A method is served at its `max_depth` and refused one hop below it."""
    assert refused is too_deep(depth, max_depth)


def test_every_hop_counts() -> None:
    """A chain of calls grows deeper by one per hop and stays refused however long it gets."""
    depth = 0
    for hop in range(1, 200):
        depth = nested(depth)
        assert min(hop, DEEPEST) == depth
        assert too_deep(depth, 2) is (hop > 2)
        assert depth == read_depth(str(depth))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None), ("0", 0), ("3", 3), ("64", 64), ("65", 64), ("1000", 64), ("9999999999", None),
        ("-1", None), ("+1", None), ("1.0", None), ("x", None), ("٣", None), (b"3", None),
    ],
)  # fmt: skip
def test_reading_the_depth(value: str | bytes, expected: int | None) -> None:
    """What is not a small number is no depth."""
    assert expected == read_depth(value)
