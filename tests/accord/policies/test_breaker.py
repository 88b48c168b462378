"""The circuit breaker under any interleaving; its arithmetic is in the vectors."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from accord.policies.breaker import PROBE_WAIT, Breaker, BreakerPolicy, Permission, State
from accord.policies.outcome import Outcome
from accord.policies.types import Refused
from tests.accord.policies.kit import Clock, always, draws

OUTCOMES = st.sampled_from(list(Outcome))


def opened(policy: BreakerPolicy | None = None) -> tuple[Breaker, Clock]:
    """A breaker that has just opened for ten seconds."""
    clock = Clock()
    breaker = Breaker(policy, clock=clock, random=always(0.5))
    while not isinstance(permission := breaker.admit(), Refused):
        breaker.record(permission, Outcome.FAILURE)
    return breaker, clock


class Interleavings(RuleBasedStateMachine):
    """Callers that come, answer late, are cancelled or get lost, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.out: list[Permission] = []
        self.random = 0.0

    @initialize(probes=st.integers(1, 4), failures=st.integers(1, 5))
    def start(self, probes: int, failures: int) -> None:
        self.policy = BreakerPolicy(probes=probes, consecutive_failures=failures)
        self.breaker = Breaker(self.policy, clock=self.clock, random=lambda: self.random)

    @rule(seconds=st.floats(0, 35), random=st.floats(0, 1, exclude_max=True))
    def time_passes(self, seconds: float, random: float) -> None:
        self.clock.now += seconds
        self.random = random

    @rule()
    def caller_comes(self) -> None:
        before = self.breaker.snapshot()
        answer = self.breaker.admit()
        match before.state:
            case State.CLOSED:
                assert isinstance(answer, Permission)
            case State.OPEN:
                assert answer == Refused(before.retry_after)
        if isinstance(answer, Permission):
            self.out.append(answer)
        else:
            # The difference of two moments may be off by their rounding.
            assert 0 < answer.retry_after <= self.policy.max_open + 1e-9

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=OUTCOMES)
    def result_comes(self, data: st.DataObject, outcome: Outcome) -> None:
        index = data.draw(st.integers(0, len(self.out) - 1))
        self.breaker.record(self.out.pop(index), outcome)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def caller_is_lost(self, data: st.DataObject) -> None:
        del self.out[data.draw(st.integers(0, len(self.out) - 1))]

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        if hasattr(self, "breaker") and self.breaker.snapshot().state is State.HALF_OPEN:
            # Those of this half-open time are the breaker's own; older ones may still be out.
            admitted = 0
            extra = []
            while isinstance(answer := self.breaker.admit(), Permission):
                extra.append(answer)
                admitted += 1
            assert admitted <= self.policy.probes
            for permission in extra:
                self.breaker.record(permission, Outcome.NEUTRAL)

    def teardown(self) -> None:
        """However it went, a target that is well again is called again."""
        if not hasattr(self, "breaker"):
            return
        self.out.clear()
        self.clock.now += self.policy.max_open
        for _ in range(self.policy.probes):
            permission = self.breaker.admit()
            assert isinstance(permission, Permission)
            self.breaker.record(permission, Outcome.SUCCESS)
        assert self.breaker.snapshot().state is State.CLOSED


TestInterleavings = Interleavings.TestCase


@given(
    probes=st.integers(1, 5),
    steps=st.lists(st.sampled_from(["come", "neutral", "success", "lost"]), max_size=60),
)
def test_half_open_never_admits_too_many(probes: int, steps: list[str]) -> None:
    """Probes under way and probes that succeeded are together never more than N."""
    breaker, clock = opened(BreakerPolicy(probes=probes))
    clock.now += 10
    out: list[Permission] = []
    succeeded = 0
    for step in steps:
        if breaker.snapshot().state is State.CLOSED:
            assert succeeded == probes
            return
        if step == "come":
            answer = breaker.admit()
            assert isinstance(answer, Permission) is (len(out) + succeeded < probes)
            if isinstance(answer, Permission):
                out.append(answer)
            else:
                assert answer == Refused(PROBE_WAIT)
            del answer
        elif out:
            permission = out.pop()
            if step != "lost":
                breaker.record(permission, Outcome(step))
                succeeded += step == "success"
            del permission


@pytest.mark.parametrize("probes", [1, 3])
def test_threads_get_exactly_n_probes(probes: int) -> None:
    """Of 32 threads that come at the same moment exactly N are admitted."""
    breaker, clock = opened(BreakerPolicy(probes=probes))
    clock.now += 10
    barrier = threading.Barrier(32)

    def come(_: int) -> Permission | Refused:
        barrier.wait()
        return breaker.admit()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(come, range(32)))
    assert probes == sum(isinstance(answer, Permission) for answer in answers)
    assert 32 - probes == breaker.snapshot().refused - 1  # one refusal told that it had opened


def test_a_probe_is_recorded_once() -> None:
    """A probe recorded twice neither closes the circuit for another nor frees a second place."""
    breaker, clock = opened(BreakerPolicy(probes=2))
    clock.now += 10
    first, second = breaker.admit(), breaker.admit()
    assert isinstance(first, Permission)
    assert isinstance(second, Permission)
    breaker.record(first, Outcome.SUCCESS)
    breaker.record(first, Outcome.SUCCESS)
    assert breaker.snapshot().state is State.HALF_OPEN
    breaker.record(second, Outcome.NEUTRAL)
    breaker.record(second, Outcome.NEUTRAL)
    assert isinstance(breaker.admit(), Permission)


def test_a_lost_probe_gives_its_place_back() -> None:
    """A permission that nobody holds any more does not keep the circuit half-open for ever."""
    breaker, clock = opened()
    clock.now += 10
    probe = breaker.admit()
    assert isinstance(probe, Permission)
    assert isinstance(breaker.admit(), Refused)
    del probe
    assert isinstance(breaker.admit(), Permission)


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12),
    st.floats(0.1, 60),
    st.floats(1, 10),
)
def test_open_time_stays_in_bounds(numbers: list[float], first: float, factor: float) -> None:
    """It is open for `open` seconds first, never shorter, and never longer than `max_open`."""
    policy = BreakerPolicy(consecutive_failures=1, open=first, max_open=first * factor)
    clock = Clock()
    breaker = Breaker(policy, clock=clock, random=draws(*numbers))
    for again in range(len(numbers) + 1):
        permission = breaker.admit()
        assert isinstance(permission, Permission)
        breaker.record(permission, Outcome.FAILURE)
        time = breaker.snapshot().retry_after
        lower = min(first * 2.0 ** max(0, again - 1), policy.max_open)
        upper = min(first * 2.0**again, policy.max_open)
        assert lower - 1e-6 <= time <= upper + 1e-6
        clock.now += time + 1e-6


def test_what_it_counts_can_be_read() -> None:
    """A snapshot shows the window, how often it opened and how many calls it turned away."""
    breaker, _ = opened()
    breaker.admit()
    snapshot = breaker.snapshot()
    assert (
        snapshot.state,
        snapshot.calls,
        snapshot.failures,
        snapshot.retry_after,
        snapshot.opened,
        snapshot.refused,
    ) == (State.OPEN, 5, 5, 10.0, 1, 2)


def test_a_late_probe_keeps_nobody_waiting() -> None:
    """After the open time a stream has succeeded; beside a call that waits another is admitted."""
    breaker, clock = opened()
    clock.now += 10
    late = breaker.admit()
    assert isinstance(late, Permission)
    clock.now += 9
    assert breaker.admit() == Refused(PROBE_WAIT)
    clock.now += 1
    other = breaker.admit(stream=True)
    assert isinstance(other, Permission)
    assert breaker.admit() == Refused(PROBE_WAIT)
    clock.now += 10
    assert isinstance(admitted := breaker.admit(), Permission)
    assert not admitted.probe
    breaker.record(late, Outcome.FAILURE)  # from before the circuit closed
    assert breaker.snapshot().state is State.CLOSED


def test_a_late_probe_still_counts() -> None:
    """A call that takes longer than the circuit is open can close it."""
    breaker, clock = opened()
    clock.now += 10
    late = breaker.admit()
    assert isinstance(late, Permission)
    clock.now += 30
    breaker.record(late, Outcome.SUCCESS)
    assert breaker.snapshot().state is State.CLOSED


def test_probes_are_exact() -> None:
    """A thousand callers at half-open: exactly the configured probes, in 200 repetitions."""
    for repetition in range(200):
        probes = repetition % 5 + 1
        now = 0.0
        breaker = Breaker(
            BreakerPolicy(probes=probes, consecutive_failures=1),
            clock=lambda: now,  # noqa: B023 - read at once
            random=lambda: 0.5,
        )
        permission = breaker.admit()
        assert isinstance(permission, Permission)
        breaker.record(permission, Outcome.FAILURE)
        now = 11.0
        admitted = [breaker.admit() for _ in range(1000)]
        assert sum(isinstance(found, Permission) for found in admitted) == probes


def test_a_row_has_no_answer_in_it() -> None:
    """Calls that run out of time tell nothing of a target that has answered a later one."""
    clock = Clock(100.0)
    breaker = Breaker(BreakerPolicy(min_calls=1000), clock=clock, random=always(0.5))

    def end(outcome: Outcome, started: float) -> State:
        permission = breaker.admit()
        assert isinstance(permission, Permission)
        breaker.record(permission, outcome, started=started)
        return breaker.snapshot().state

    for _ in range(20):
        end(Outcome.SUCCESS, 99.5)
        for _ in range(5):
            assert end(Outcome.FAILURE, 99.0) is State.CLOSED
    assert [end(Outcome.FAILURE, 99.5) for _ in range(5)][3:] == [State.CLOSED, State.OPEN]
