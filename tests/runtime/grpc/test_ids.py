"""Ids sort by the time they were made, whatever the clock does."""

from __future__ import annotations

import threading
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.grpc.ids import Uuid7, derived, made_at, uuid7


def test_is_a_uuid_of_version_7() -> None:
    """Version and variant bits are those of RFC 9562."""
    made = UUID(uuid7())
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_carries_the_time() -> None:
    """The first 48 bits are Unix milliseconds."""
    made = UUID(Uuid7(clock=lambda: 1_700_000_000.123)())
    assert made.int >> 80 == 1_700_000_000_123


@given(st.lists(st.floats(min_value=0, max_value=4e9), min_size=1, max_size=50))
def test_increases_whatever_the_clock_does(times: list[float]) -> None:
    """Ids increase strictly while the clock jumps, and are never ahead of its latest reading."""
    readings = iter(times)
    make = Uuid7(clock=lambda: next(readings))
    made = [make() for _ in times]
    assert made == sorted(set(made))
    assert UUID(made[-1]).int >> 80 == max(int(each * 1000) for each in times)


def test_a_full_counter_goes_on_in_the_next_millisecond() -> None:
    """More ids than the counter holds, made at one instant, still increase and stay valid."""
    make = Uuid7(clock=lambda: 1_700_000_000.0)
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {UUID(each).version for each in made} == {7}
    assert UUID(made[-1]).int >> 80 <= 1_700_000_000_003


def test_threads_never_share_an_id() -> None:
    """Ids made by several threads at once are distinct, and increase within each thread."""
    lists: list[list[str]] = []
    make = Uuid7()

    def work() -> None:
        lists.append([make() for _ in range(2_000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for made in lists for each in made}) == 8_000
    assert all(made == sorted(made) for made in lists)


def test_a_derived_id_is_the_same_for_ever() -> None:
    """Pinned: ids of what was sent outside, by whatever version, must be found again."""
    cause = "01a1fd97-2452-71fd-bada-e5c976259c7d"
    assert derived(cause, "mail") == "01a1fd97-2452-7824-b491-9dd38316273f"
    assert derived(cause.upper(), "mail") == derived(cause, "mail")
    assert made_at(derived(cause, "mail")) == made_at(cause) == 0x01A1FD972452 / 1000


@given(st.uuids(), st.uuids(), st.text(), st.text())
def test_derived_ids_tell_causes_and_purposes_apart(
    cause: UUID, other: UUID, purpose: str, another: str
) -> None:
    """They are UUIDs of version 7, and equal only for the same cause and purpose."""
    made = UUID(derived(str(cause), purpose))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert (made == UUID(derived(str(other), another))) == ((cause, purpose) == (other, another))
