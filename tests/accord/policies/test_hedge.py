"""Hedging and the digest of latencies it rests on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.policies.budget import Budget, BudgetPolicy
from accord.policies.hedge import (
    GENERATION,
    GROWTH,
    MIN_SAMPLES,
    REFRESH,
    Hedge,
    HedgePolicy,
    LatencyDigest,
)
from tests.accord.policies.kit import Clock

LATENCIES = st.lists(st.floats(1e-4, 100), min_size=1, max_size=200)


@given(LATENCIES, st.floats(50, 99.9))
def test_percentile_is_close(latencies: list[float], percent: float) -> None:
    """A percentile is the exact one, or higher by one step of the histogram at most."""
    digest = LatencyDigest(0.0)
    for latency in latencies:
        digest.record(0.0, latency)
    rank = max(1, math.ceil(len(latencies) * percent / 100 - 1e-9))
    exact = sorted(latencies)[rank - 1]
    assert exact * (1 - 1e-9) <= digest.percentile(percent) <= exact * GROWTH * (1 + 1e-9)


@pytest.mark.parametrize("latency", [0.0, -1.0, 1e-9, 1e9, math.inf])
def test_odd_latencies_do_no_harm(latency: float) -> None:
    """A latency beyond the histogram counts as its shortest or longest."""
    digest = LatencyDigest(0.0)
    digest.record(0.0, latency)
    assert 1e-4 <= digest.percentile(99) <= 4000
    assert digest.count == 1


def test_the_past_is_forgotten() -> None:
    """What was recorded counts for one generation at least and two at most."""
    digest = LatencyDigest(0.0)
    digest.record(1.0, 1.0)
    digest.rotate(GENERATION)
    assert digest.count == 1
    digest.rotate(2 * GENERATION)
    assert digest.count == 0
    digest.record(2 * GENERATION, 1.0)
    digest.rotate(5 * GENERATION)
    assert digest.count == 0
    assert digest.percentile(95) == 0.0


def known(latency: float = 0.020, policy: HedgePolicy | None = None) -> tuple[Hedge, Clock]:
    """Hedging that has just seen enough calls."""
    clock = Clock()
    hedge = Hedge(policy, clock=clock)
    for _ in range(MIN_SAMPLES):
        hedge.record(latency)
    return hedge, clock


def test_not_before_enough_is_known() -> None:
    """Without enough latencies a call is not hedged."""
    hedge = Hedge(clock=Clock())
    for _ in range(MIN_SAMPLES - 1):
        hedge.record(0.020)
        assert hedge.delay() is None
    hedge.record(0.020)
    assert hedge.delay() == pytest.approx(0.020, rel=GROWTH - 1)


def test_the_floor() -> None:
    """The delay is never below one millisecond, or what the contract says."""
    assert known(0.0001)[0].delay() == 0.001
    assert known(0.020, HedgePolicy(min_delay=0.5))[0].delay() == 0.5


def test_the_delay_follows_the_latency() -> None:
    """A computed percentile is used for a moment only, and forgotten with its samples."""
    hedge, clock = known(0.020)
    hedge.delay()
    for _ in range(100 * MIN_SAMPLES):
        hedge.record(1.0)
    assert hedge.delay() == pytest.approx(0.020, rel=GROWTH - 1)
    clock.now += REFRESH
    assert hedge.delay() == pytest.approx(1.0, rel=GROWTH - 1)
    clock.now += 2 * GENERATION
    assert hedge.delay() is None


def test_backups_within_the_budget() -> None:
    """Each backup is paid for from the budget of the target."""
    hedge, _ = known()
    budget = Budget(BudgetPolicy(floor=0.1), clock=Clock())  # one retry
    assert hedge.send(budget)
    assert not hedge.send(budget)
    snapshot = hedge.snapshot()
    assert (snapshot.samples, snapshot.sent, snapshot.refused) == (MIN_SAMPLES, 1, 1)
    assert snapshot.delay == hedge.delay()
