"""The rate limit."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.policies import rate_limit
from accord.policies.rate_limit import RateLimiter, RatePolicy
from tests.accord.policies.kit import Clock

RATES = st.sampled_from([0.1, 0.5, 1.0, 3.0, 10.0, 1000.0])


@given(RATES, st.integers(1, 20), st.lists(st.floats(0, 3), max_size=100))
def test_never_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    """In any span of time a caller is admitted burst + rate * span times at most."""
    clock = Clock()
    limiter = RateLimiter(RatePolicy(rate, burst), clock=clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        if limiter.admit("a") is None:
            admitted.append(clock.now)
    for first, since in enumerate(admitted):
        for last in range(first, len(admitted)):
            allowed = burst + rate * (admitted[last] - since)
            assert last - first + 1 <= allowed + 1e-3


@given(RATES, st.integers(1, 20), st.lists(st.floats(0, 3), max_size=50))
def test_the_wait_is_exact(rate: float, burst: int, pauses: list[float]) -> None:
    """Whoever waits as long as told is admitted; whoever comes clearly sooner is not."""
    clock = Clock()
    limiter = RateLimiter(RatePolicy(rate, burst), clock=clock)
    for pause in pauses:
        clock.now += pause
        refused = limiter.admit("a")
        if refused is not None:
            assert 0 < refused.retry_after <= 1 / rate + 1e-6
            clock.now += refused.retry_after - min(1e-4, refused.retry_after / 2)
            assert limiter.admit("a") is not None
            clock.now += min(1e-4, refused.retry_after / 2) + 1e-6
            assert limiter.admit("a") is None


def test_the_burst_is_there_at_once() -> None:
    """A caller that was quiet may make as many calls at once as its bucket holds."""
    limiter = RateLimiter(RatePolicy(2.0, 5), clock=Clock(1000.0))
    assert [limiter.admit("a") for _ in range(5)] == [None] * 5
    refused = limiter.admit("a")
    assert refused is not None
    assert refused.retry_after == pytest.approx(0.5)


def test_callers_do_not_share() -> None:
    """One caller's flood takes nothing from another."""
    limiter = RateLimiter(RatePolicy(1.0, 1), clock=Clock())
    assert limiter.admit("a") is None
    assert limiter.admit("a") is not None
    assert limiter.admit("b") is None


def test_identities_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of callers: the longest quiet one is forgotten."""
    monkeypatch.setattr(rate_limit, "MAX_IDENTITIES", 3)
    limiter = RateLimiter(RatePolicy(1.0, 2), clock=Clock())
    for name in ("a", "b", "b", "c", "a"):
        assert limiter.admit(name) is None
    limiter.admit("d")
    assert limiter.admit("a") is not None
    assert limiter.admit("b") is None
    assert limiter.admit("b") is None
    assert limiter.admit("b") is not None


def test_threads_share_a_bucket() -> None:
    """Eight threads of one caller get exactly one burst."""
    limiter = RateLimiter(RatePolicy(1.0, 100), clock=Clock())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: limiter.admit("a"), range(1000)))
    assert answers.count(None) == 100
