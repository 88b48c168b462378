"""Retry decisions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.policies.budget import Budget, BudgetPolicy
from accord.policies.retry import NEVER, Retry, RetryPolicy, Stop, max_backoff, read_attempt
from accord.policies.types import Code
from tests.accord.policies.kit import Clock, always

POLICY = RetryPolicy(4)
AWAY = Code.UNAVAILABLE


def retry(policy: RetryPolicy = POLICY, *, random: float = 0.5, **more: Any) -> Retry:
    """A call that may be repeated, without a budget."""
    return Retry(policy, **{"repeatable": True, "budget": None, "random": always(random)} | more)


@given(
    initial=st.floats(0.001, 60),
    factor=st.floats(1, 1000),
    number=st.integers(0, 10_000),
    random=st.floats(0, 1, exclude_max=True),
)
def test_backoff_stays_in_bounds(initial: float, factor: float, number: int, random: float) -> None:
    """Every wait lies within [0, min(maximum, initial * 2^n)], for any n without overflow."""
    policy = RetryPolicy(5, initial, initial * factor)
    bound = max_backoff(policy, number)
    assert bound <= policy.max_backoff
    if number <= 32:
        assert bound == min(policy.max_backoff, initial * 2.0**number)
    call = retry(policy, random=random)
    for step in range(4):
        wait = call.failed(AWAY, remaining=None)
        assert isinstance(wait, float)
        assert 0 <= wait <= min(policy.max_backoff, initial * 2.0**step)


@given(st.lists(st.sampled_from([None, 0.0, 0.5, NEVER]), max_size=10), st.integers(2, 5))
def test_attempts_are_bounded(pushbacks: list[float | None], attempts: int) -> None:
    """Whatever the server says, there are no more attempts than the contract allows."""
    call = retry(RetryPolicy(attempts))
    made = 1
    for pushback in pushbacks:
        if isinstance(call.failed(AWAY, remaining=None, pushback=pushback), Stop):
            break
        made += 1
    assert made <= attempts
    assert call.previous == made - 1


def test_all_attempts_used_marks_the_answer() -> None:
    """After its last attempt a tier gives up and tells the tiers above to."""
    call = retry(RetryPolicy(3))
    assert call.failed(AWAY, remaining=5.0) == 0.05
    assert call.failed(AWAY, remaining=5.0) == 0.1
    stop = call.failed(AWAY, remaining=5.0)
    assert stop is Stop.ATTEMPTS
    assert stop.marks


@pytest.mark.parametrize(
    ("stop", "marks"),
    [
        (Stop.STARTED, False),
        (Stop.CODE, False),
        (Stop.UNSAFE, False),
        (Stop.TOLD, True),
        (Stop.SINGLE, False),
        (Stop.ATTEMPTS, True),
        (Stop.DEADLINE, False),
        (Stop.BUDGET, True),
    ],
)
def test_who_marks(stop: Stop, marks: bool) -> None:
    """Only a tier that has tried enough, may not, or was told so itself silences those above."""
    assert marks is stop.marks


@pytest.mark.parametrize("code", [code for code in Code if code not in (Code.OK, AWAY)])
def test_only_listed_codes(code: Code) -> None:
    """A code that the contract does not list is final, with or without a pushback."""
    assert retry().failed(code, remaining=None) is Stop.CODE
    assert retry().failed(code, remaining=None, pushback=0.1) is Stop.CODE


def test_only_what_is_safe_to_repeat() -> None:
    """A method that could act twice is not sent twice."""
    assert retry(repeatable=False).failed(AWAY, remaining=None) is Stop.UNSAFE


def test_only_before_the_first_message() -> None:
    """A stream whose caller has seen a message is not begun again."""
    assert retry().failed(AWAY, remaining=None, started=True) is Stop.STARTED


def test_pushback_replaces_the_backoff() -> None:
    """The wait is exactly what the server asked for, and the exponent starts afresh after it."""
    call = retry(RetryPolicy(5))
    assert call.failed(AWAY, remaining=None) == 0.05
    assert call.failed(AWAY, remaining=None) == 0.1
    assert call.failed(AWAY, remaining=None, pushback=3.0, retry_info=1.0) == 3.0
    assert call.failed(AWAY, remaining=None) == 0.05


def test_retry_info_is_obeyed() -> None:
    """The error's RetryInfo counts as a pushback does."""
    assert retry().failed(AWAY, remaining=None, retry_info=0.7) == 0.7
    assert retry().failed(AWAY, remaining=None, retry_info=-0.1) is Stop.TOLD


def test_never_means_never() -> None:
    """A negative pushback ends the call at once, and the mark is passed on, whatever the code."""
    assert retry().failed(AWAY, remaining=None, pushback=NEVER) is Stop.TOLD
    assert retry().failed(Code.INTERNAL, remaining=None, pushback=NEVER) is Stop.TOLD


@pytest.mark.parametrize("inherited", [1, 2, 99])
def test_a_tier_above_retries(inherited: int) -> None:
    """Under another tier's retry there is one attempt only, and the tiers below learn of it."""
    call = retry(inherited=inherited)
    assert inherited == call.attempt
    stop = call.failed(AWAY, remaining=None)
    assert stop is Stop.SINGLE
    assert not stop.marks


def test_the_attempt_number_travels() -> None:
    """The first attempt has number 0, each one after it one more."""
    call = retry()
    assert call.attempt == 0
    call.failed(AWAY, remaining=None)
    assert call.attempt == 1
    call.failed(AWAY, remaining=None)
    assert call.attempt == 2


@pytest.mark.parametrize(("own", "expected"), [(0, 1), (1, 1), (2, 2), (4, 4), (100, 4)])
def test_own_limit_only_lowers(own: int, expected: int) -> None:
    """A caller can ask for fewer attempts than the contract, never for more or none."""
    call = retry(max_attempts=own)
    while not isinstance(call.failed(AWAY, remaining=None), Stop):
        pass
    assert expected == call.previous + 1


def test_a_wait_that_outlasts_the_call_is_not_begun() -> None:
    """The deadline spans all attempts: the caller gets the failure now, not a timeout later."""
    assert retry().failed(AWAY, remaining=0.05) is Stop.DEADLINE
    assert retry().failed(AWAY, remaining=0.051) == 0.05
    assert retry().failed(AWAY, remaining=2.0, pushback=3.0) is Stop.DEADLINE
    assert retry(random=0.0).failed(AWAY, remaining=0.0) is Stop.DEADLINE


def test_the_budget_is_asked_last() -> None:
    """Only a retry that would be made is paid for; without means the tier gives up."""
    budget = Budget(BudgetPolicy(floor=0.1), clock=Clock())  # one retry
    assert retry(budget=budget).failed(Code.NOT_FOUND, remaining=None) is Stop.CODE
    assert retry(budget=budget, repeatable=False).failed(AWAY, remaining=None) is Stop.UNSAFE
    assert retry(budget=budget, inherited=1).failed(AWAY, remaining=None) is Stop.SINGLE
    assert retry(budget=budget).failed(AWAY, remaining=0.01) is Stop.DEADLINE
    call = retry(budget=budget)
    assert call.failed(AWAY, remaining=None) == 0.05
    assert call.failed(AWAY, remaining=None) is Stop.BUDGET
    assert call.previous == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None), ("0", 0), ("1", 1), ("07", 7), ("99", 99), ("100", 99), ("999999999", 99),
        ("9999999999", None), ("-1", None), ("1.5", None), ("x", None), ("٣", None), (b"1", None),
    ],
)  # fmt: skip
def test_reading_the_attempt(value: str | bytes, expected: int | None) -> None:
    """What is not a small number is no attempt's."""
    assert expected == read_attempt(value)


def test_three_tiers_do_not_multiply() -> None:
    """Three tiers with four attempts each hit a dead leaf four times, not sixty-four."""
    hits = 0

    def leaf(attempt: int) -> float | None:
        nonlocal hits
        hits += 1
        return None

    def tier(below: Any) -> Any:
        def call(attempt: int) -> float | None:
            own = retry(inherited=attempt)
            while True:
                pushback = below(own.attempt)
                step = own.failed(AWAY, remaining=None, pushback=pushback)
                if isinstance(step, Stop):
                    return NEVER if step.marks else pushback

        return call

    assert tier(tier(tier(leaf)))(0) == NEVER
    assert hits == 4
