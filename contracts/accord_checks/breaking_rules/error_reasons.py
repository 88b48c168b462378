"""The reasons of errors."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_ERROR_REMOVED",
    Risk.BREAKING,
    purpose="No reason of an error is taken away or renamed.",
    why="callers that act on it no longer see it",
    before='errors: ["THING_GONE"]',
    after="",
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Reasons that were declared."""
    gone = sorted(old.policy.errors - new.policy.errors)
    if gone:
        yield Found(
            f"the errors of {new.short} no longer hold {', '.join(gone)}",
            "keep the reason, or agree with the callers that act on it",
            ", ".join(gone),
            ("errors",),
        )


@change_rule(
    "POLICY_ERROR_ADDED",
    Risk.RISKY,
    purpose="No reason of an error is added.",
    why="callers do not know it and treat it as any other failure",
    before='errors: ["THING_GONE"]',
    after='errors: ["THING_GONE", "THING_LOCKED"]',
)
def added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Reasons that were not declared."""
    for reason in sorted(new.policy.errors - old.policy.errors):
        yield Found(
            f"{new.short} may answer {reason} now",
            "tell its callers what to do about it",
            reason,
            ("errors", list(new.written.errors).index(reason)),
        )
