"""Who may begin, who waits and who is refused; the steps of the signals are in the vectors."""

import math
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from accord.policies.latency_limit import LatencyLimit
from accord.policies.limiter import INTERVAL, RETRY_AFTER, TARGET, Limiter
from accord.policies.queue import PATIENCE, Line, Permit, Waiter
from accord.policies.types import Priority, Refused
from tests.accord.policies.kit import Clock, always
from tests.accord.policies.simulation import Loop, Pool, Simulation

PRIORITIES = st.sampled_from(list(Priority))


def made(clock: Clock | None = None) -> Limiter:
    """A limiter without work."""
    return Limiter(clock=clock or Clock(), random=always(0.5))


def silent() -> None:
    """A driver that looks later."""


def waiting(limiter: Limiter, line: Line, priority: Priority, **how: float) -> Waiter:
    """A place in a line that has no room."""
    waiter = limiter.acquire(line, priority, lambda: silent, **how)  # type: ignore[arg-type]
    assert isinstance(waiter, Waiter)
    return waiter


def taken(limiter: Limiter, line: Line) -> Permit:
    """A permit that must be free."""
    permit = limiter.acquire(line, Priority.DEFAULT)
    assert isinstance(permit, Permit)
    return permit


class Traffic(RuleBasedStateMachine):
    """Calls that come, wait, are served, give up and are refused, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = made(self.clock)
        self.permits: list[Permit] = []
        self.waiters: list[Waiter] = []
        self.rung: list[int] = []
        self.signal = False

    @initialize(bounds=st.lists(st.sampled_from([1, 2, 5, float("inf")]), min_size=1, max_size=3))
    def start(self, bounds: list[float]) -> None:
        self.lines = [self.limiter.line(bound) for bound in bounds]

    @rule(seconds=st.floats(0, 2))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(
        data=st.data(),
        priority=PRIORITIES,
        patient=st.booleans(),
        looped=st.booleans(),
        waited=st.floats(0, 0.5),
    )
    def call_comes(
        self, data: st.DataObject, priority: Priority, patient: bool, looped: bool, waited: float
    ) -> None:
        line = data.draw(st.sampled_from(self.lines))
        number = len(self.rung)
        self.rung.append(0)

        def ring() -> None:
            self.rung[number] += 1

        bell = (lambda: ring) if patient else None
        match self.limiter.acquire(line, priority, bell, waited=waited, looped=looped):
            case Permit() as permit:
                self.permits.append(permit)
            case Waiter() as waiter:
                assert patient
                self.waiters.append(waiter)
            case Refused(wait):
                assert RETRY_AFTER <= wait <= 2 * RETRY_AFTER
                self.refused(line)

    def refused(self, line: Line) -> None:
        """Nobody is refused unless something is lacking."""
        assert line.limited or self.limiter.snapshot().overloaded

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), twice=st.booleans())
    def call_ends(self, data: st.DataObject, twice: bool) -> None:
        permit = self.permits.pop(data.draw(st.integers(0, len(self.permits) - 1)))
        self.limiter.release(permit)
        if twice:
            self.limiter.release(permit)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def waiter_looks(self, data: st.DataObject) -> None:
        waiter = self.waiters[data.draw(st.integers(0, len(self.waiters) - 1))]
        match self.limiter.begin(waiter):
            case Permit() as permit:
                self.permits.append(permit)
                self.waiters.remove(waiter)
            case Refused():
                assert self.clock.now - waiter.since >= PATIENCE[waiter.priority]
                self.refused(waiter.line)
                self.waiters.remove(waiter)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def waiter_gives_up(self, data: st.DataObject) -> None:
        self.limiter.leave(self.waiters.pop(data.draw(st.integers(0, len(self.waiters) - 1))))

    @rule()
    def loop_turns(self) -> None:
        self.limiter.turn()

    @invariant()
    def every_permit_is_accounted_for(self) -> None:
        snapshot = self.limiter.snapshot()
        granted = [waiter for waiter in self.waiters if waiter.permit is not None]
        assert len(self.permits) + len(granted) == snapshot.in_flight
        assert len(self.waiters) - len(granted) == snapshot.queued
        assert all(line.in_flight <= line.bound for line in getattr(self, "lines", ()))
        assert all(count <= 1 for count in self.rung)

    def teardown(self) -> None:
        """When everybody has gone, nothing is left behind."""
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
    limiter = made()
    line = limiter.line(1)
    permit = taken(limiter, line)
    waiters = [waiting(limiter, line, priority) for priority in priorities]
    served: list[Waiter] = []
    while len(served) < len(waiters):
        limiter.release(permit)
        (ready,) = [waiter for waiter in waiters if waiter.permit and waiter not in served]
        served.append(ready)
        found = limiter.begin(ready)
        assert isinstance(found, Permit)
        permit = found
    assert sorted(waiters, key=lambda waiter: waiter.priority) == served


def test_a_permit_for_one_who_has_gone_goes_to_the_next() -> None:
    """A waiter that was served and gave up at the same moment loses no permit."""
    limiter = made()
    line = limiter.line(1)
    permit = taken(limiter, line)
    first, second = (waiting(limiter, line, Priority.DEFAULT) for _ in range(2))
    limiter.release(permit)
    assert first.permit is not None
    limiter.leave(first)
    assert second.permit is not None
    assert limiter.snapshot().in_flight == 1


def test_threads_that_have_waited() -> None:
    """Calls that got a thread too late are refused by priority, once that has lasted."""
    clock = Clock()
    limiter = made(clock)
    line = limiter.line()
    delay = PATIENCE[Priority.DEFAULT]

    def found(priority: Priority) -> bool:
        permit = limiter.acquire(line, priority, lambda: silent, waited=delay)
        if isinstance(permit, Permit):
            limiter.release(permit)
        return isinstance(permit, Permit)

    while clock.now < INTERVAL:
        assert all(found(priority) for priority in Priority)
        clock.now += 0.1
    assert [found(priority) for priority in Priority] == [True, False, False]
    delay = TARGET
    assert [found(priority) for priority in Priority] == [True, True, False]
    delay = 0.0
    assert all(found(priority) for priority in Priority)
    clock.now += INTERVAL
    delay = PATIENCE[Priority.DEFAULT]
    assert all(found(priority) for priority in Priority)


def test_threads_never_exceed_a_bound() -> None:
    """Sixteen threads over a bound of three have never more than three permits between them."""
    limiter = made()
    line = limiter.line(3)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            permit = limiter.acquire(line, Priority.DEFAULT)
            if isinstance(permit, Permit):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)
                limiter.release(permit)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert max(most) <= 3
    assert limiter.snapshot().in_flight == 0


class Hold:
    """How long something is held: about `seconds`, or by chance."""

    def __init__(self, seconds: float, *, varied: bool) -> None:
        self.seconds = seconds
        self._varied = varied
        self._random = random.Random(2)

    def __call__(self) -> float:
        if self._varied:
            return self._random.expovariate(1 / self.seconds)
        return self.seconds * self._random.uniform(1, 1.1)


@pytest.mark.parametrize("varied", [False, True])
def test_behind_a_pool(varied: bool) -> None:
    """Three times what a pool of ten can do: all that is critical, and nearly all of the peak."""
    simulation = Simulation()
    line = simulation.limiter.line()
    pool = Pool(simulation, 10, Hold(0.02, varied=varied))
    simulation.offer(line, pool, 300, 0, 5)
    simulation.offer(line, pool, 1500, 5, 18)
    simulation.offer(line, pool, 300, 18, 35)
    assert not simulation.until(5).refused
    first = simulation.until(8)  # it takes a second or two to find the limit
    assert not first.refused[Priority.CRITICAL]
    overload = simulation.until(18)
    assert overload.answered.total() >= 0.9 * 10 * 10 / (0.02 if varied else 0.021)
    assert not overload.refused[Priority.CRITICAL]
    assert overload.refused[Priority.DEFAULT] < overload.refused[Priority.SHEDDABLE]
    assert simulation.until(25).answered.total() >= 0.95 * 7 * 300
    assert not simulation.until(35).refused


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("callers", [0, 50])
def test_a_slower_dependency_is_no_queue(varied: bool, callers: int) -> None:
    """A dependency that becomes five times slower refuses nobody, and soon nobody waits for it."""
    simulation = Simulation()
    hold = Hold(0.02, varied=varied)
    line = simulation.limiter.line()
    pool = Pool(simulation, 10**6, hold)
    if callers:
        simulation.callers(line, pool, callers)
    else:
        simulation.offer(line, pool, 500, 0, 35)
    simulation.until(10)
    hold.seconds *= 5
    assert not simulation.until(20).refused
    after = simulation.until(35)
    assert not after.refused
    assert after.answered.total() >= 0.95 * 15 * (callers / 0.105 if callers else 500)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.02, 1.0), st.integers(1, 150), st.booleans())
def test_waiting_is_no_overload(seconds: float, callers: int, varied: bool) -> None:
    """However many calls only wait at once, nobody is refused."""
    simulation = Simulation()
    line = simulation.limiter.line()
    simulation.callers(line, Pool(simulation, 10**6, Hold(seconds, varied=varied)), callers)
    found = simulation.until(max(2.0, 4 * seconds))
    assert not found.refused
    assert found.answered


def test_a_loop_that_is_held() -> None:
    """Three times what a loop can do: all that is critical, most of the peak, no long turn."""
    loop = Loop(150, 0.02)
    loop.until(3)
    found = loop.until(23)
    assert not found.refused[Priority.CRITICAL]
    assert found.answered[Priority.CRITICAL] >= 0.99 * found.offered[Priority.CRITICAL]
    assert found.answered.total() >= 0.9 * 20 / (0.02 + Loop.ACCEPT)
    assert found.refused[Priority.SHEDDABLE] >= 0.99 * found.offered[Priority.SHEDDABLE]
    assert loop.longest <= 0.15
    assert loop.unaccepted <= 10


@pytest.mark.parametrize(("per_second", "hold"), [(25, 0.02), (40, 0.02), (500, 0.001)])
def test_a_pause_is_no_overload(per_second: float, hold: float) -> None:
    """A loop that is busy for half of its time, or four fifths, stands still for half a second."""
    loop = Loop(per_second, hold)
    found = Counter(loop.until(5).refused)
    loop.pause(0.5)
    assert not found + loop.until(10).refused


def test_a_loop_recovers() -> None:
    """When the overload is over, nobody is refused any more."""
    loop = Loop(150, 0.02)
    assert loop.until(10).refused
    loop.per_second = 30
    loop.until(13)
    found = loop.until(20)
    assert not found.refused
    assert not loop.limiter.snapshot().overloaded


def test_one_caller_never_queues_behind_itself() -> None:
    """However much longer the calls of a single caller take, its method gets no limit."""
    watch, now = LatencyLimit(), 0.0
    for number in range(3000):
        watch.begins(0, now)
        began = now
        now += 0.002 if number % 600 < 300 else 0.05  # on a machine that has become busy
        watch.ended(0, now, began=began, waiting=False)
        assert watch.limit == math.inf


@pytest.mark.parametrize(
    ("seed", "seconds", "number", "spread", "gap"),
    [
        (9, 0.2, 60, 0.5, 0.3),
        (30, 0.5, 60, 0.1, 0.3),
        (34, 0.2, 100, 0.1, 0),
        (71, 0.7, 60, 0.3, 0.05),
    ],
)
def test_bursts_are_no_queue(
    seed: int, seconds: float, number: int, spread: float, gap: float
) -> None:
    """However many calls come at once, again and again, none is slowed as long as they only wait.

    The ends of a burst lie close together, which is no sign that each has taken little time.
    """
    chance, watch = random.Random(seed), LatencyLimit()
    events: list[tuple[float, float | None]] = []
    starts = 0.0
    for _ in range(30):
        ends = starts
        for _ in range(number):
            begun = starts + chance.uniform(0, spread)
            ended = begun + seconds * chance.uniform(1, 1.05)
            events += [(begun, None), (ended, begun)]
            ends = max(ends, ended)
        starts = ends + gap
    at_work = 0
    for now, began in sorted(events, key=lambda event: event[0]):
        if began is None:
            watch.begins(at_work, now)
        else:
            watch.ended(at_work - 1, now, began=began, waiting=False)
        at_work += 1 if began is None else -1
        assert watch.limit == math.inf


def test_a_trial_is_short() -> None:
    """However long calls had queued, a trial ends as soon as some have begun and ended in it."""
    simulation = Simulation()
    line = simulation.limiter.line()
    pool = Pool(simulation, 10, Hold(0.02, varied=False))
    simulation.offer(line, pool, 300, 0, 5)
    simulation.offer(line, pool, 1500, 5, 9)
    now = 5.0
    while line.limit == math.inf:
        now += 0.01
        simulation.until(now)
    drained = now + line.in_flight / 450
    while not line.limited:
        now += 0.01
        simulation.until(now)
    assert now <= drained + 0.5
