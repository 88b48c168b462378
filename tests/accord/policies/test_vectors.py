"""The policy vectors: decisions as data, which other languages can be checked against too."""

import json
import math
from pathlib import Path
from typing import Any, Final

import pytest

from accord.policies.breaker import Breaker, BreakerPolicy, Permission
from accord.policies.budget import Budget, BudgetPolicy
from accord.policies.latency_limit import LatencyLimit
from accord.policies.limiter import Standing
from accord.policies.outcome import Outcome, outcome_of
from accord.policies.retry import NEVER, Retry, RetryPolicy, max_backoff, parse_pushback
from accord.policies.types import Code, Refused
from tests.accord.policies.kit import Clock, always

VECTORS: Final = Path(__file__).parents[1] / "vectors"


def cases(name: str) -> list[Any]:
    """The cases of one file, as pytest parameters."""
    found = json.loads((VECTORS / f"{name}.json").read_text())["cases"]
    return [pytest.param(case, id=case.get("name", str(n))) for n, case in enumerate(found)]


def seconds(value: Any) -> Any:
    """A wait as the vectors write it."""
    return NEVER if value == "never" else value


def test_every_file_is_run() -> None:
    """A vector file that no test reads would promise something that nobody checks."""
    files = {file.stem for file in VECTORS.glob("*.json")}
    assert {"backoff", "breaker", "budget", "limiter", "outcome", "pushback"} == files


@pytest.mark.parametrize("case", cases("pushback"))
def test_pushback(case: Any) -> None:
    """A pushback is read as gRFC A6 writes it; anything else means never."""
    assert seconds(case["seconds"]) == parse_pushback(*case["values"])
    assert seconds(case["seconds"]) == parse_pushback(*(v.encode() for v in case["values"]))


@pytest.mark.parametrize("case", cases("backoff"))
def test_backoff(case: Any) -> None:
    """The bound of a wait doubles up to its maximum, and the wait is a random share of it."""
    policy = RetryPolicy(2, case["initial_backoff"], case["max_backoff"])
    assert case["bound"] == pytest.approx(max_backoff(policy, case["retry"]))
    if case["retry"] > 10:
        return  # no call has so many attempts; the bound must hold all the same
    policy = RetryPolicy(case["retry"] + 2, case["initial_backoff"], case["max_backoff"])
    retry = Retry(policy, repeatable=True, budget=None, random=always(case["random"]))
    for _ in range(case["retry"] + 1):
        wait = retry.failed(Code.UNAVAILABLE, remaining=None)
    assert case["wait"] == pytest.approx(wait)


@pytest.mark.parametrize("peek", [False, True])
@pytest.mark.parametrize("case", cases("budget"))
def test_budget(case: Any, peek: bool) -> None:
    """The budget grants what its floor and the window's calls allow, and its balance says so."""
    clock = Clock()
    budget = Budget(BudgetPolicy(**case["policy"]), clock=clock)
    for step in case["steps"]:
        clock.now = step["at"]
        for _ in range(step.get("deposit", 0)):
            budget.deposit()
        if "withdraw" in step:
            if peek:
                assert step["granted"] == min(budget.snapshot().balance, step["withdraw"]), step
            assert step["granted"] == sum(budget.withdraw() for _ in range(step["withdraw"])), step


@pytest.mark.parametrize("case", cases("outcome"))
def test_outcome(case: Any) -> None:
    """A result counts against its target only when it tells of the target's own fault."""
    found = outcome_of(
        Code[case["code"]],
        pushback=seconds(case.get("pushback")),
        given=case.get("given"),
        contract=case.get("contract"),
        own=case.get("own", False),
    )
    assert Outcome(case["outcome"]) is found


@pytest.mark.parametrize("case", cases("breaker"))
def test_breaker(case: Any) -> None:
    """The breaker opens, probes and closes at exactly the stated steps."""
    clock = Clock()
    breaker = Breaker(BreakerPolicy(**case["policy"]), clock=clock, random=always(case["random"]))
    kept: dict[str, Permission] = {}
    for step in case["steps"]:
        clock.now = step["at"]
        for _ in range(step.get("times", 1) if "call" in step else 0):
            permission = breaker.admit()
            assert isinstance(permission, Permission), step
            breaker.record(permission, Outcome(step["call"]))
        if "admit" in step:
            admitted = breaker.admit()
            if isinstance(admitted, Refused):
                assert step["admit"] == "refused", step
                assert step["retry_after"] == pytest.approx(admitted.retry_after), step
            else:
                assert step["admit"] == "admitted", step
                kept[step["as"]] = admitted
        if "record" in step:
            breaker.record(kept[step["record"]], Outcome(step["outcome"]))
        if "state" in step:
            assert step["state"] == breaker.snapshot().state.value, step


@pytest.mark.parametrize("case", cases("limiter"))
def test_limiter(case: Any) -> None:
    """Nothing is refused before a queue has stood, or a limit has shown that there is one."""
    standing, watch, now = Standing(), LatencyLimit(), 0.0
    for step in case.get("delays", ()):
        standing.observe(step["delay"], step["at"])
        assert step["speaks"] == standing.speaks(step["at"]), step
    for step in case.get("loads", ()):
        for _ in range(round(step["seconds"] * step["rate"])):
            now += 1 / step["rate"]
            began = now - step["at_work"] / step["rate"]
            waiting = step.get("waiting", False)
            watch.ended(step["at_work"] - 1, now, began=began, waiting=waiting)
            watch.begins(step["at_work"] - 1, now)
        assert step["phase"] == watch.phase.value, step
        assert watch.limit == (math.inf if step["limit"] is None else step["limit"]), step
