"""How long calls may take."""

import math
from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule, went
from accord_checks.declarations import Rpc


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


@change_rule(
    "POLICY_TIMEOUT_SHORTENED",
    Risk.BREAKING,
    purpose="No timeout is shortened.",
    why="calls that took that long fail with DEADLINE_EXCEEDED",
    before="timeout: {seconds: 5}",
    after="timeout: {seconds: 2}",
)
def shortened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call's own timeout."""
    then, now = old.policy.timeout, new.policy.timeout
    if _limit(now) < _limit(then):
        yield Found(
            went(f"the timeout of {new.short}", then, now),
            "keep it, or agree with its callers first",
            ("timeout",),
        )


@change_rule(
    "POLICY_TIMEOUT_LENGTHENED",
    Risk.RISKY,
    purpose="No timeout is lengthened.",
    why="callers wait longer, and theirs may no longer contain it",
    before="timeout: {seconds: 2}",
    after="timeout: {seconds: 5}",
)
def lengthened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call's own timeout."""
    then, now = old.policy.timeout, new.policy.timeout
    if _limit(now) > _limit(then):
        yield Found(
            went(f"the timeout of {new.short}", then, now),
            "look at the `calls` of whoever waits for it",
            ("timeout",),
        )


@change_rule(
    "POLICY_ATTEMPT_TIMEOUT_CHANGED",
    Risk.RISKY,
    purpose="The timeout of an attempt stays as it is.",
    why="attempts end earlier, or leave less time for the next",
    before="timeout: {seconds: 5} attempt_timeout: {seconds: 2}",
    after="timeout: {seconds: 5} attempt_timeout: {seconds: 1}",
)
def attempt(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of a single attempt."""
    then, now = old.policy.attempt_timeout, new.policy.attempt_timeout
    if then != now:
        yield Found(
            went(f"the attempt timeout of {new.short}", then, now),
            "see that it leaves room for the attempts",
            ("attempt_timeout",),
        )
