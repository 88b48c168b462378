"""The retry budget."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from accord.policies.budget import Budget, BudgetPolicy
from tests.accord.policies.kit import Clock

STEPS = st.lists(st.tuples(st.floats(0, 4), st.integers(0, 30), st.integers(0, 30)), max_size=60)


@given(STEPS, st.sampled_from([0.0, 0.1, 1.0, 10.0]), st.sampled_from([0, 20, 50]))
def test_never_more_than_floor_and_share(
    steps: list[tuple[float, int, int]], floor: float, percent: int
) -> None:
    """No window of the past holds more retries than floor * window plus the share of its calls."""
    clock = Clock()
    budget = Budget(BudgetPolicy(percent=percent, floor=floor), clock=clock)
    log: list[tuple[float, int, int]] = []
    for pause, calls, wanted in steps:
        clock.now += pause
        for _ in range(calls):
            budget.deposit()
        granted = sum(budget.withdraw() for _ in range(wanted))
        log.append((clock.now, calls, granted))
        if not granted:
            continue
        # The window itself: its grid of ten buckets of a second.
        inside = [entry for entry in log if int(entry[0]) > int(clock.now) - 10]
        allowed = floor * 10 + percent / 100 * sum(entry[1] for entry in inside)
        assert sum(entry[2] for entry in inside) <= allowed + 1e-9


@given(STEPS)
def test_total_outage_costs_a_fifth(steps: list[tuple[float, int, int]]) -> None:
    """Without a floor the sum of all retries ever granted is at most 20 % of all calls."""
    clock = Clock()
    budget = Budget(BudgetPolicy(floor=0), clock=clock)
    made = granted = 0
    for pause, calls, wanted in steps:
        clock.now += pause
        for _ in range(calls):
            budget.deposit()
        made += calls
        granted += sum(budget.withdraw() for _ in range(wanted))
        assert granted <= 0.2 * made


def test_a_refusal_costs_nothing() -> None:
    """Asking in vain does not use up what is deposited later, and is counted."""
    budget = Budget(BudgetPolicy(floor=0), clock=Clock())
    for _ in range(100):
        assert not budget.withdraw()
    for _ in range(5):
        budget.deposit()
    assert budget.withdraw()
    snapshot = budget.snapshot()
    assert (
        snapshot.calls,
        snapshot.retries,
        snapshot.balance,
        snapshot.refused,
    ) == (5, 1, 0, 100)


def test_threads_share_it_exactly() -> None:
    """Eight threads that deposit and withdraw at once are granted no retry too many or too few."""
    budget = Budget(BudgetPolicy(floor=0), clock=Clock())

    def work(_: int) -> int:
        for _ in range(500):
            budget.deposit()
        return sum(budget.withdraw() for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        granted = sum(pool.map(work, range(8)))
    granted += sum(budget.withdraw() for _ in range(1000))
    assert granted == 800
