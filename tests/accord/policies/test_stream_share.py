"""Who may hold how many streams."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from accord.policies.stream_share import RETRY_AFTER, StreamShares
from accord.policies.types import Priority

CRITICAL, DEFAULT, SHEDDABLE = Priority


def fill(shares: StreamShares, *holders: str, priority: Priority = CRITICAL) -> int:
    """Take as many places as these holders get."""
    taken = 0
    while shares.take(holders, priority) is None:
        taken += 1
    return taken


def shares(places: int) -> StreamShares:
    return StreamShares(places, random=lambda: 0.5)


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 2), (4, 3), (100, 68), (1000, 675)])
def test_one_alone(places: int, most: int) -> None:
    """A single connection gets about two thirds, and at least one."""
    assert fill(shares(places), "a") == most


def test_there_is_always_one_for_a_newcomer() -> None:
    """Until there are as many that take all that they get as places are kept for newcomers."""
    found = shares(1000)
    assert [fill(found, f"greedy {number}") for number in range(90)][:4] == [675, 169, 42, 11]
    assert found.take(("newcomer",), CRITICAL) is None


def test_all_holders_must_have_room() -> None:
    """A caller has its share over all of its connections."""
    found = shares(1000)
    assert fill(found, "1", "alice") + fill(found, "2", "alice") == 675
    assert fill(found, "2", "bob") > 100


@pytest.mark.parametrize(("priority", "most"), [(CRITICAL, 100), (DEFAULT, 90), (SHEDDABLE, 50)])
def test_priorities(priority: Priority, most: int) -> None:
    """What is less important leaves something to what is more."""
    assert fill(shares(100), priority=priority) == most


def test_what_is_given_back_can_be_taken() -> None:
    """And a holder that holds nothing is forgotten."""
    found = shares(4)
    assert fill(found, "a") == 3
    refused = found.take(("a",), CRITICAL)
    assert refused is not None
    assert refused.retry_after == 1.5 * RETRY_AFTER
    found.give_back(("a",))
    assert fill(found, "a") == 1
    for _ in range(3):
        found.give_back(("a",))
    assert not found._held
    assert fill(found, "b") == 3


def test_threads_share_the_places() -> None:
    """Eight threads of one caller get exactly its share, and give all of it back."""
    found = shares(1000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: found.take(("a",), CRITICAL), range(4000)))
        assert answers.count(None) == found.taken == 675
        list(pool.map(lambda _: found.give_back(("a",)), range(675)))
    assert (found.taken, found._held) == (0, {})
