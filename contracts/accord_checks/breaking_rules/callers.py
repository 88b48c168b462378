"""Who may call an RPC."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc

# Without a list everybody may call, or nobody: that is for the process to say (`authorize`).
_EVERYBODY: Final = frozenset({"*"})


@change_rule(
    "POLICY_CALLER_REMOVED",
    Risk.BREAKING,
    purpose="Nobody who may call an RPC is taken off its list.",
    why="their calls are refused with PERMISSION_DENIED",
    before='allow: ["spiffe://example.org/orders", "spiffe://example.org/mail"]',
    after='allow: ["spiffe://example.org/orders"]',
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" does not cover either; none are left where the list is taken away."""
    then, now = old.policy.allow, new.policy.allow
    gone = set() if "*" in now or now == then else (then or _EVERYBODY) - now
    if gone:
        what = f"{', '.join(sorted(map(_who, gone)))} may no longer call {new.short}"
        value = ", ".join(sorted(gone))
        yield Found(what, "see that it no longer does, then take it off", value, ("allow",))


@change_rule(
    "POLICY_CALLER_ADDED",
    Risk.RISKY,
    purpose="Nobody new may call an RPC.",
    why="more services depend on it, and more can reach what it protects",
    before='allow: ["spiffe://example.org/orders"]',
    after='allow: ["spiffe://example.org/orders", "*"]',
)
def added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" did not cover before; everybody where the list is taken away."""
    then, now, listed = old.policy.allow, new.policy.allow, list(new.written.allow)
    added = set() if "*" in then or now == then else (now or _EVERYBODY) - then
    for caller in sorted(added):
        yield Found(
            f"{_who(caller)} may call {new.short} now",
            "ask whoever answers for its data",
            caller,
            ("allow", listed.index(caller)) if caller in listed else ("allow",),
        )


def _who(caller: str) -> str:
    return "any verified identity" if caller == "*" else caller
