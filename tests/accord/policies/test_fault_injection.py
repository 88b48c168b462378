"""Fault injection."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.policies.fault_injection import NO_FAULT, Fault, FaultPolicy, Faults, lowered
from accord.policies.types import Code
from tests.accord.policies.kit import always, draws

BOTH = FaultPolicy(delay=0.5, delay_percent=50, abort=Code.INTERNAL, abort_percent=50)
PERCENT = st.floats(0, 100)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0.0, 0.0, Fault(0.5, Code.INTERNAL)),
        (0.0, 0.9, Fault(0.5, None)),
        (0.9, 0.0, Fault(0.0, Code.INTERNAL)),
        (0.9, 0.9, NO_FAULT),
        (0.5, 0.5, NO_FAULT),
    ],
)
def test_delay_and_abort_have_a_draw_each(first: float, second: float, expected: Fault) -> None:
    """The first random number decides on the delay alone, the second on the abort alone."""
    assert expected == Faults(BOTH, random=draws(first, second)).draw()


@given(
    PERCENT,
    PERCENT,
    st.floats(0, 10),
    st.none()
    | st.text(max_size=30)
    | st.builds(
        "delay-ms={}, delay-percent={},abort-percent={}".format,
        st.integers(0, 10**9),
        st.integers(0, 1000),
        st.integers(0, 1000),
    ),
    st.booleans(),
)
def test_a_header_only_lowers(
    delay_percent: float, abort_percent: float, delay: float, header: str | None, guarded: bool
) -> None:
    """No header raises a delay or a percentage, changes the code or opens the guard."""
    policy = FaultPolicy(delay, delay_percent, Code.INTERNAL, abort_percent, guarded)
    found = lowered(policy, header)
    if found is None:
        assert guarded
        return
    assert found.delay <= policy.delay + 1e-9
    assert found.delay_percent <= policy.delay_percent
    assert found.abort_percent <= policy.abort_percent
    assert (
        replace(found, delay=delay, delay_percent=delay_percent, abort_percent=abort_percent)
        == policy
    )


def test_a_header_lowers_what_it_names() -> None:
    """What the header leaves out stays as in the policy."""
    assert replace(BOTH, delay=0.2) == lowered(BOTH, "delay-ms=200")
    assert replace(BOTH, delay_percent=10, abort_percent=0) == lowered(
        BOTH, "delay-percent=10, abort-percent=0"
    )


@pytest.mark.parametrize(
    "header",
    [None, "", "delay-ms", "delay-ms=", "delay-ms=x", "delay-ms=-1", "abort=OK", b"delay-ms=1",
     "delay-ms=1;delay-percent=1", "delay-ms=9999999999"],
)  # fmt: skip
def test_the_guard_needs_a_readable_header(header: str | bytes | None) -> None:
    """A guarded fault meets only calls that ask for it; a broken header is as good as none."""
    assert Faults(replace(BOTH, guarded=True), random=always(0.0)).draw(header) == NO_FAULT
    assert lowered(BOTH, header) == BOTH


def test_a_guarded_fault_meets_who_asks() -> None:
    """A readable header opens the guard."""
    faults = Faults(replace(BOTH, guarded=True), random=always(0.0))
    assert Fault(0.5, Code.INTERNAL) == faults.draw("delay-ms=500")


def test_delays_are_bounded() -> None:
    """No more calls than allowed are held up at once; the others pass, or are aborted."""
    policy = replace(BOTH, delay_percent=100, abort_percent=0, max_active=2)
    faults = Faults(policy, random=always(0.0))
    first, second = faults.draw(), faults.draw()
    assert [Fault(0.5)] * 2 == [first, second]
    assert faults.draw() == NO_FAULT
    faults.done(NO_FAULT)
    faults.done(first)
    assert faults.active == 1
    assert Fault(0.5) == faults.draw()
    assert faults.active == 2


@pytest.mark.parametrize(("percent", "hit"), [(0, False), (100, True)])
def test_certainty(percent: float, hit: bool) -> None:
    """At 0 % nobody is hit and at 100 % everybody, whatever is drawn."""
    for number in (0.0, 0.5, 0.999999):
        faults = Faults(FaultPolicy(abort_percent=percent), random=always(number))
        assert hit is (faults.draw().abort is not None)
