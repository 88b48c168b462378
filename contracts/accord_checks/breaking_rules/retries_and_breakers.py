"""Second attempts, and when a target is left alone."""

from collections.abc import Iterator
from typing import Any, Final

from accord_checks.breaking_rules import limits
from accord_checks.breaking_rules.change import Found, Risk, change_rule, moved, parts
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_RETRY_REMOVED",
    Risk.BREAKING,
    purpose="No retry is taken away, nor attempts or codes of it.",
    why="callers see failures that were retried for them",
    before="retry: {max_attempts: 3}",
    after="",
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """The whole option, its own or that of the service, or a part of it."""
    if new.policy.retry is not None:
        for path in _LESS:
            yield from moved(old, new, path, _less, "keep them, or tell its callers")
    elif old.policy.retry is not None:
        yield Found(
            f"retry of {new.short} went from {old.policy.retry.max_attempts} attempts to none",
            "keep `retry`, or tell its callers",
            f"retry {old.policy.retry.max_attempts} attempts to none",
            ("retry",),
        )


@change_rule(
    "POLICY_RETRY_CHANGED",
    Risk.RISKY,
    purpose="No retry gets more attempts or codes, or another back-off.",
    why="a failing server gets more load, or its callers wait longer",
    before="retry: {max_attempts: 3}",
    after="retry: {max_attempts: 5}",
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Each part of a retry; a retry that is new."""
    then, now = old.policy.retry, new.policy.retry
    if then is None and now is not None:
        yield Found(
            f"retry of {new.short} went from none to {now.max_attempts} attempts",
            "see that its handler bears repeats and its server the load",
            f"retry none to {now.max_attempts} attempts",
            ("retry",),
        )
    if now is not None:
        instead = "see that its server bears the load and its callers the failures"
        lost = [found.steps for path in _LESS for found in moved(old, new, path, _less, "")]
        yield from (it for it in parts(old, new, "retry", instead) if it.steps not in lost)


_LESS: Final = ("retry.max_attempts", "retry.codes")


def _less(now: Any, then: Any) -> bool:
    """Fewer attempts, or codes of which some are gone."""
    if isinstance(now, frozenset):
        return then is not None and not then <= now
    return then is not None and now < then


@change_rule(
    "POLICY_HEDGE_CHANGED",
    Risk.RISKY,
    purpose="Hedging stays as it is.",
    why="the server gets another share of calls twice, or callers another latency",
    before="idempotency: {key: KEY_REQUIRED} hedge: {percentile: 95}",
    after="idempotency: {key: KEY_REQUIRED} hedge: {percentile: 50}",
)
def hedged(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Each part of it; a hedge that is new or taken away."""
    return parts(old, new, "hedge", "see that the server bears the load", added=True)


@change_rule(
    "POLICY_BREAKER_CHANGED",
    Risk.RISKY,
    purpose="The circuit breaker stays as it is.",
    why="callers are refused at other times than before",
    before="breaker: {consecutive_failures: 5}",
    after="breaker: {consecutive_failures: 2}",
)
def breaker(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Each part of it; a breaker that is new."""
    if new.policy.breaker is not None:
        lost = [found.steps for found in limits.lost(old, new)]
        instead = "see that callers bear the refusals"
        changed = parts(old, new, "breaker", instead, added=True)
        yield from (found for found in changed if found.steps not in lost)
