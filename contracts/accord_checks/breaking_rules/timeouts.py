"""How long calls may take."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule, less, moved, raised
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_TIMEOUT_SHORTENED",
    Risk.BREAKING,
    purpose="No timeout is shortened, of a call or of an attempt.",
    why="calls that took that long fail with DEADLINE_EXCEEDED",
    before="timeout: {seconds: 5}",
    after="timeout: {seconds: 2}",
)
def shortened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call's own, and that of its attempts, which none may have had."""
    instead = "keep it, or agree with its callers first"
    yield from moved(old, new, "timeout", less, instead, "the timeout")
    yield from moved(old, new, "attempt_timeout", less, instead, "the attempt timeout")


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
    instead = "look at the `calls` of whoever waits for it"
    return moved(old, new, "timeout", raised, instead, "the timeout")


@change_rule(
    "POLICY_ATTEMPT_TIMEOUT_CHANGED",
    Risk.RISKY,
    purpose="The timeout of an attempt is not lengthened.",
    why="attempts leave less time for the next",
    before="timeout: {seconds: 5} attempt_timeout: {seconds: 1}",
    after="timeout: {seconds: 5} attempt_timeout: {seconds: 2}",
)
def attempt(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of a single attempt; one that is gone."""
    instead = "see that it leaves room for the attempts"
    return moved(old, new, "attempt_timeout", _longer, instead, "the attempt timeout")


def _longer(now: float | None, then: float | None) -> bool:
    return less(then, now)
