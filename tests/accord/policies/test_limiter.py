"""The concurrency limiter and its queue; the steps of the limit are in the vectors."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from accord.policies.gradient import Gradient2, GradientPolicy
from accord.policies.limiter import (
    MAX_RETRY_AFTER,
    MIN_RETRY_AFTER,
    SAMPLE_TIME,
    Limiter,
)
from accord.policies.queue import Permit, QueuePolicy, Waiter
from accord.policies.types import Priority, Refused
from tests.accord.policies.kit import Clock, always

PRIORITIES = st.sampled_from(list(Priority))


def fixed(limit: int, queue: int = 0) -> Limiter:
    """A limiter with a limit that stays."""
    return Limiter(None, QueuePolicy(queue), clock=Clock(), random=always(0.0), fixed=limit)


def nothing() -> None:
    """A driver that looks later."""


def taken(limiter: Limiter, priority: Priority = Priority.DEFAULT) -> Permit:
    """A permit that must be free."""
    permit = limiter.acquire(priority)
    assert isinstance(permit, Permit)
    return permit


def waiting(limiter: Limiter, priority: Priority) -> Waiter:
    """A place in the queue, which must have room."""
    waiter = limiter.acquire(priority, nothing)
    assert isinstance(waiter, Waiter)
    return waiter


@given(
    st.integers(1, 10),
    st.integers(10, 300),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 400)), max_size=200),
)
def test_limit_stays_in_bounds(
    minimum: int, maximum: int, samples: list[tuple[float, int]]
) -> None:
    """Whatever is measured, the limit stays between its minimum and maximum."""
    gradient = Gradient2(GradientPolicy(initial=10, minimum=minimum, maximum=maximum))
    for duration, in_flight in samples:
        assert minimum <= gradient.update(duration, in_flight) <= maximum


def test_the_minimum_can_be_reached() -> None:
    """A server that gets ever slower ends with one call at a time."""
    gradient = Gradient2()
    for _ in range(10):
        gradient.update(0.01, 20)
    duration = 0.1
    for _ in range(200):
        gradient.update(duration, 200)
        duration *= 1.05
    assert gradient.limit == 1.0


class Traffic(RuleBasedStateMachine):
    """Calls that come, wait, are served, give up and are shed, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.permits: list[Permit] = []
        self.waiters: list[Waiter] = []
        self.notified: list[int] = []

    @initialize(initial=st.integers(1, 4), length=st.integers(0, 4))
    def start(self, initial: int, length: int) -> None:
        self.policy = GradientPolicy(initial=initial, minimum=1, maximum=8)
        self.length = length
        self.limiter = Limiter(
            Gradient2(self.policy), QueuePolicy(length), clock=self.clock, random=always(0.5)
        )

    @rule(seconds=st.floats(0, 1))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(priority=PRIORITIES, patient=st.booleans())
    def call_comes(self, priority: Priority, patient: bool) -> None:
        number = len(self.notified)
        self.notified.append(0)

        def notify() -> None:
            self.notified[number] += 1

        match self.limiter.acquire(priority, notify if patient else None):
            case Permit() as permit:
                self.permits.append(permit)
            case Waiter() as waiter:
                assert patient
                self.waiters.append(waiter)
            case Refused(wait):
                assert MIN_RETRY_AFTER <= wait <= MAX_RETRY_AFTER

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), sample=st.booleans(), twice=st.booleans())
    def call_ends(self, data: st.DataObject, sample: bool, twice: bool) -> None:
        permit = self.permits.pop(data.draw(st.integers(0, len(self.permits) - 1)))
        self.limiter.release(permit, sample=sample)
        if twice:
            self.limiter.release(permit)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def waiter_goes_on(self, data: st.DataObject) -> None:
        waiter = self.waiters[data.draw(st.integers(0, len(self.waiters) - 1))]
        if waiter.permit is not None:
            self.permits.append(waiter.permit)
            self.waiters.remove(waiter)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data(), twice=st.booleans())
    def waiter_gives_up(self, data: st.DataObject, twice: bool) -> None:
        waiter = self.waiters.pop(data.draw(st.integers(0, len(self.waiters) - 1)))
        self.limiter.leave(waiter)
        if twice:
            self.limiter.leave(waiter)

    @invariant()
    def every_permit_is_accounted_for(self) -> None:
        if not hasattr(self, "limiter"):
            return
        snapshot = self.limiter.snapshot()
        granted = [waiter for waiter in self.waiters if waiter.permit is not None]
        shed = [waiter for waiter in self.waiters if waiter.refused is not None]
        assert len(self.permits) + len(granted) == snapshot.in_flight
        assert len(self.waiters) - len(granted) - len(shed) == snapshot.queued
        assert snapshot.queued <= self.length
        assert not snapshot.queued or snapshot.in_flight >= snapshot.limit
        assert 1 <= snapshot.limit <= self.policy.maximum
        assert all(count <= 1 for count in self.notified)
        assert not any(waiter.permit and waiter.refused for waiter in self.waiters)

    def teardown(self) -> None:
        """When everybody has gone, nothing is left behind."""
        if not hasattr(self, "limiter"):
            return
        for waiter in self.waiters:
            self.limiter.leave(waiter)
        for permit in self.permits:
            self.limiter.release(permit)
        snapshot = self.limiter.snapshot()
        assert (snapshot.in_flight, snapshot.queued) == (0, 0)


TestTraffic = Traffic.TestCase


@given(st.lists(PRIORITIES, min_size=1, max_size=12))
def test_the_most_important_is_served_first(priorities: list[Priority]) -> None:
    """Waiters are served by priority, and in the order in which they came within each."""
    limiter = fixed(1, queue=len(priorities))
    permit = taken(limiter)
    waiters = [waiting(limiter, priority) for priority in priorities]
    served: list[Waiter] = []
    while len(served) < len(waiters):
        limiter.release(permit)
        ready = [waiter for waiter in waiters if waiter.permit and waiter not in served]
        assert len(ready) == 1
        served += ready
        assert ready[0].permit is not None
        permit = ready[0].permit
    expected = sorted(range(len(waiters)), key=lambda index: priorities[index])
    assert [waiters[index] for index in expected] == served


def test_the_least_important_is_shed_first() -> None:
    """In a full queue a newcomer displaces the newest of those below it, and nobody else."""
    limiter = fixed(1, queue=3)
    taken(limiter)
    shed: list[str] = []

    def come(name: str, priority: Priority) -> Permit | Waiter | Refused:
        return limiter.acquire(priority, lambda: shed.append(name))

    come("older", Priority.SHEDDABLE)
    come("newer", Priority.SHEDDABLE)
    come("usual", Priority.DEFAULT)
    assert isinstance(come("late", Priority.SHEDDABLE), Refused)
    assert isinstance(come("critical", Priority.CRITICAL), Waiter)
    assert shed == ["newer"]
    assert isinstance(come("usual too", Priority.DEFAULT), Waiter)
    assert shed == ["newer", "older"]
    assert isinstance(come("usual as well", Priority.DEFAULT), Refused)
    assert isinstance(come("critical too", Priority.CRITICAL), Waiter)
    assert shed == ["newer", "older", "usual too"]


def test_a_permit_for_one_who_has_gone_goes_to_the_next() -> None:
    """A waiter that was served and gave up at the same moment loses no permit."""
    limiter = fixed(1, queue=2)
    permit = taken(limiter)
    first, second = waiting(limiter, Priority.DEFAULT), waiting(limiter, Priority.DEFAULT)
    limiter.release(permit)
    assert first.permit is not None
    limiter.leave(first)
    assert second.permit is not None
    assert limiter.snapshot().in_flight == 1


def measured(limiter: Limiter, clock: Clock, work: Callable[[int], float]) -> int:
    """The limit after a minute in which all permits are always in use."""
    for _ in range(240):
        clock.now += SAMPLE_TIME
        permits = [taken(limiter) for _ in range(limiter.limit)]
        clock.now += work(len(permits))
        for permit in permits:
            limiter.release(permit)
    return limiter.limit


def test_the_limit_finds_the_capacity() -> None:
    """A server that works on 30 calls at once and queues the rest is given about as many."""
    clock = Clock()
    limiter = Limiter(Gradient2(), clock=clock, random=always(0.0))
    limit = measured(limiter, clock, lambda busy: 0.020 * max(1.0, busy / 30))
    assert 30 <= limit <= 60


def test_a_server_that_copes_gets_the_maximum() -> None:
    """While calls take no longer than usual the limit grows to its maximum."""
    clock = Clock()
    limiter = Limiter(Gradient2(), clock=clock, random=always(0.0))
    assert measured(limiter, clock, lambda busy: 0.020) == 200


def test_refusals_say_when_the_queue_has_drained() -> None:
    """The wait is the time that the work before it takes, up to twice, within bounds."""
    clock = Clock()
    gradient = Gradient2(GradientPolicy(initial=1))
    gradient.update(0.5, 0)
    slow = Limiter(gradient, QueuePolicy(1), clock=clock, random=always(0.5))
    taken(slow)
    waiting(slow, Priority.DEFAULT)
    assert Refused(1.5) == slow.acquire(Priority.DEFAULT)
    gradient.update(1000.0, 0)
    assert Refused(MAX_RETRY_AFTER * 0.75) == slow.acquire(Priority.DEFAULT)
    quick = fixed(0)
    assert Refused(MIN_RETRY_AFTER) == quick.acquire(Priority.DEFAULT)


def test_threads_never_exceed_the_limit() -> None:
    """Sixteen threads over a limit of three have never more than three permits between them."""
    limiter = fixed(3)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            permit = limiter.acquire(Priority.DEFAULT)
            if isinstance(permit, Permit):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)
                limiter.release(permit)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert max(most) <= 3
    assert limiter.snapshot().in_flight == 0
