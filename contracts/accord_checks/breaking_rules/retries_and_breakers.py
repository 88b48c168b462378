"""Second attempts, and when a target is left alone."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule, parts
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_RETRY_REMOVED",
    Risk.BREAKING,
    purpose="No retry is taken away.",
    why="callers see failures that were retried for them",
    before="retry: {max_attempts: 3}",
    after="",
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """The whole option, its own or that of the service."""
    if old.policy.retry is not None and new.policy.retry is None:
        yield Found(
            f"retry of {new.short} went from {old.policy.retry.max_attempts} attempts to none",
            "keep `retry`, or tell its callers",
            f"retry {old.policy.retry.max_attempts} attempts to none",
            ("retry",),
        )


@change_rule(
    "POLICY_RETRY_CHANGED",
    Risk.RISKY,
    purpose="Attempts, back-off and codes of a retry stay as they are.",
    why="a failing server gets more load, or its callers more failures",
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
        yield from parts(old, new, "retry", instead)


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
        yield from parts(old, new, "breaker", "see that callers bear the refusals", added=True)
