"""The numbers that the pages promise of policies, as they are written there: by default."""

import itertools

import pytest

from accord.policies.breaker import Breaker, Permission
from accord.policies.budget import Budget, BudgetPolicy
from accord.policies.cache import AnswerCache, CacheKey, CachePolicy
from accord.policies.deadline import effective, hop_reserve
from accord.policies.fault_injection import FaultPolicy, Faults
from accord.policies.hedge import Hedge
from accord.policies.limiter import Limiter
from accord.policies.outcome import Outcome
from accord.policies.queue import Permit, Waiter
from accord.policies.rate_limit import RateLimiter, RatePolicy
from accord.policies.resume import Drop, ResumeLimits, Resumption
from accord.policies.retry import Retry, RetryPolicy
from accord.policies.stream_share import StreamShares
from accord.policies.types import Code, Priority, Refused
from tests.accord.policies.kit import Clock, always

ALMOST = 1 - 1e-12
"""The largest that a random source draws, and the least that it does not."""


def granted(budget: Budget, most: int = 1000) -> int:
    """How many retries a budget grants now, up to so many."""
    return sum(1 for _ in itertools.takewhile(lambda _: budget.withdraw(), range(most)))


def test_a_fifth_of_the_calls_and_ten_a_second() -> None:
    """A budget grants 100 retries in 10 s to who makes no calls, and one more for each five."""
    clock = Clock(100.0)
    budget = Budget(clock=clock)
    assert granted(budget) == 100
    for _ in range(9):
        budget.deposit()
    assert granted(budget) == 1
    clock.now += 9.0
    assert granted(budget) == 0
    clock.now += 1.0
    assert granted(budget) == 100


def test_a_share_is_not_rounded_up() -> None:
    """Three calls of which 33 % may be repeated allow none, four allow one."""
    budget = Budget(BudgetPolicy(percent=33, floor=0), clock=Clock())
    for _ in range(3):
        budget.deposit()
    assert granted(budget) == 0
    budget.deposit()
    assert granted(budget) == 1


@pytest.mark.parametrize("random", [0.0, 0.5, ALMOST])
def test_waits_of_100_ms_that_double_up_to_10_s(random: float) -> None:
    """A wait is uniform between nothing and its bound, on UNAVAILABLE and nothing else."""
    policy = RetryPolicy(10)
    retry = Retry(policy, repeatable=True, budget=None, random=always(random))
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    waits = [retry.failed(Code.UNAVAILABLE, remaining=None) for _ in bounds]
    assert waits == pytest.approx([random * bound for bound in bounds])
    assert policy.codes == {Code.UNAVAILABLE}


def hedge_of(*latencies: float) -> tuple[Hedge, Clock]:
    """Hedging that has seen these latencies."""
    clock = Clock()
    hedge = Hedge(clock=clock)
    for latency in latencies:
        hedge.record(latency)
    return hedge, clock


def test_a_backup_after_the_95th_percentile() -> None:
    """Of 100 calls that took up to 0.01 and 0.1 s, the slowest five are left out, and no more."""
    assert hedge_of(*[0.01] * 95, *[0.1] * 5)[0].delay() == pytest.approx(0.01, rel=0.08)
    assert hedge_of(*[0.01] * 94, *[0.1] * 6)[0].delay() == pytest.approx(0.1, rel=0.08)


def test_a_backup_needs_twenty_latencies_and_a_millisecond() -> None:
    """Nineteen say nothing yet; of twenty that were quicker, the backup comes after 1 ms."""
    assert hedge_of(*[0.0002] * 19)[0].delay() is None
    assert hedge_of(*[0.0002] * 20)[0].delay() == 0.001


def test_a_percentile_is_used_for_250_ms_and_known_for_a_minute() -> None:
    """What is new counts after a quarter of a second, what is old for 30 to 60 s."""
    hedge, clock = hedge_of(*[0.01] * 20)
    assert hedge.delay() == pytest.approx(0.01, rel=0.08)
    for _ in range(400):
        hedge.record(1.0)
    clock.now = 0.249
    assert hedge.delay() == pytest.approx(0.01, rel=0.08)
    clock.now = 0.25
    assert hedge.delay() == pytest.approx(1.0, rel=0.08)
    clock.now = 59.9
    assert hedge.delay() is not None
    clock.now = 90.0
    assert hedge.delay() is None


@pytest.mark.parametrize(
    ("left", "kept"), [(10.0, 0.02), (0.4, 0.02), (0.2, 0.01), (0.02, 0.001), (0.0, 0.0), (-1.0, 0)]
)
def test_five_percent_and_at_most_20_ms_are_kept_back(left: float, kept: float) -> None:
    """A nested call ends so much before the call that it is made in, and never after it."""
    assert hop_reserve(left) == pytest.approx(kept)
    assert effective(100.0, inherits=100.0 + left) == pytest.approx(100.0 + left - kept)


@pytest.mark.parametrize("random", [0.0, 0.5, ALMOST])
def test_a_stream_is_resumed_after_50_ms_up_to_2_s(random: float) -> None:
    """Waits double from 0.05 s to 2 s; a message begins them anew."""
    stream = Resumption(0, limits=ResumeLimits(), clock=Clock(), random=always(random))
    away = Drop(Code.UNAVAILABLE)
    bounds = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert [stream.dropped(away) for _ in bounds] == pytest.approx([random * b for b in bounds])
    assert stream.delivered(1)
    assert stream.dropped(away) == pytest.approx(random * 0.05)


def test_a_stream_is_resumed_for_60_s_without_progress() -> None:
    """So long, and no longer, an attempt is made that brings nothing."""
    clock = Clock()
    stream = Resumption(0, limits=ResumeLimits(), clock=clock, random=always(0.0))
    away = Drop(Code.UNAVAILABLE)
    clock.now = 100.0
    assert stream.dropped(away) is not None
    clock.now = 159.9
    assert stream.dropped(away) is not None
    clock.now = 160.0
    assert stream.dropped(away) is None


@pytest.mark.parametrize(("lived", "progress"), [(4.9, False), (5.0, True)])
def test_a_quiet_attempt_is_progress_after_5_s(lived: float, progress: bool) -> None:
    """An attempt that was accepted and has lived so long begins the patience anew."""
    clock = Clock()
    stream = Resumption(0, limits=ResumeLimits(), clock=clock, random=always(0.0))
    away = Drop(Code.UNAVAILABLE)
    assert stream.dropped(away) is not None
    clock.now = 59.0
    stream.opened()
    clock.now += lived
    assert (stream.dropped(away) is not None) is progress


@pytest.mark.parametrize(
    ("priority", "patience"),
    [(Priority.SHEDDABLE, 0.1), (Priority.DEFAULT, 0.25), (Priority.CRITICAL, 2.0)],
)
def test_patience_and_the_way_back(priority: Priority, patience: float) -> None:
    """At a bound a call waits for 0.1, 0.25 or 2 s, and is told to come back in 250 to 500 ms."""
    clock = Clock()
    limiter = Limiter(clock=clock, random=always(ALMOST))
    line = limiter.line(1)
    assert isinstance(limiter.acquire(line, priority), Permit)
    waiter = limiter.acquire(line, priority, lambda: lambda: None)
    assert isinstance(waiter, Waiter)
    clock.now = patience - 0.001
    assert limiter.begin(waiter) is None
    clock.now = patience
    refused = limiter.begin(waiter)
    assert isinstance(refused, Refused)
    assert refused.retry_after == pytest.approx(0.5)
    soonest = Limiter(clock=clock, random=always(0.0))
    assert soonest.acquire(soonest.line(0), priority) == Refused(0.25)


def test_who_gets_no_place_for_a_stream_comes_back_in_a_second_or_two() -> None:
    """A refused stream is told 1 to 2 s."""
    for random, told in ((0.0, 1.0), (ALMOST, 2.0)):
        refused = StreamShares(0, random=always(random)).take(("a",), Priority.CRITICAL)
        assert refused is not None
        assert refused.retry_after == pytest.approx(told)


def test_a_caller_that_finds_all_probes_taken_waits_for_a_second() -> None:
    """Half-open, one probe is under way after 10 s; the others are told 1 s."""
    clock = Clock()
    breaker = Breaker(clock=clock, random=always(0.5))
    for _ in range(5):
        permission = breaker.admit()
        assert isinstance(permission, Permission)
        breaker.record(permission, Outcome.FAILURE)
    assert breaker.admit() == Refused(10.0)
    clock.now = 10.0
    probe = breaker.admit()
    assert isinstance(probe, Permission)
    assert breaker.admit() == Refused(1.0)


def test_ten_thousand_callers_are_remembered() -> None:
    """The bucket of the 10,001st costs that of the one who was quiet for longest."""
    limiter = RateLimiter(RatePolicy(0.001, 1), clock=Clock())
    for number in range(10_000):
        assert limiter.admit(str(number)) is None
    assert limiter.admit("0") is not None
    assert limiter.admit("one more") is None
    assert limiter.admit("0") is None
    assert limiter.admit("2") is not None


@pytest.mark.parametrize(("size", "most"), [(1, 10_000), (2**20, 16)])
def test_ten_thousand_answers_of_16_mib_are_kept(size: int, most: int) -> None:
    """One more drops the one that was not asked for longest; so does one more byte."""
    cache = AnswerCache[int](clock=Clock())
    cache.declare("m", CachePolicy(30.0))
    ticket = cache.ask("m")
    keys = [CacheKey("", "m", str(number).encode()) for number in range(most + 1)]
    for number, key in enumerate(keys):
        assert cache.store(key, number, size=size, ticket=ticket)
    assert cache.snapshot().entries == most
    assert cache.lookup(keys[0]) is None
    assert cache.lookup(keys[1]) == 1
    assert not cache.store(keys[0], 0, size=16 * 2**20 + 1, ticket=ticket)


def test_a_thousand_calls_are_held_up_at_once() -> None:
    """The next one passes unharmed, until one of them goes on."""
    faults = Faults(FaultPolicy(delay=1.0, delay_percent=100.0), random=always(0.0))
    held = [faults.draw() for _ in range(1001)]
    assert [fault.delay for fault in held] == [1.0] * 1000 + [0.0]
    faults.done(held[0])
    assert faults.draw().delay == 1.0
