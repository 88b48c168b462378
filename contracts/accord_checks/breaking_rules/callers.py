"""Who may call an RPC."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_CALLER_REMOVED",
    Risk.BREAKING,
    purpose="Nobody who may call an RPC is taken off its list.",
    why="their calls are refused with PERMISSION_DENIED",
    before='allow: ["spiffe://example.org/orders", "spiffe://example.org/mail"]',
    after='allow: ["spiffe://example.org/orders"]',
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" does not cover either."""
    admitted = _admitted(new)
    gone = set() if "*" in admitted else _admitted(old) - admitted
    if gone:
        yield Found(
            f"{', '.join(sorted(_who(caller) for caller in gone))} may no longer call {new.short}",
            "see that it no longer does, then take it off",
            ("allow",),
        )


@change_rule(
    "POLICY_CALLER_ADDED",
    Risk.RISKY,
    purpose="Nobody new may call an RPC.",
    why="more services depend on it, and more can reach what it protects",
    before='allow: ["spiffe://example.org/orders"]',
    after='allow: ["spiffe://example.org/orders", "*"]',
)
def added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" did not cover before."""
    admitted, listed = _admitted(old), list(new.written.allow)
    added = set() if "*" in admitted else _admitted(new) - admitted
    for caller in sorted(added):
        yield Found(
            f"{_who(caller)} may call {new.short} now",
            "ask whoever answers for its data",
            ("allow", listed.index(caller)) if caller in listed else ("allow",),
        )


def _admitted(rpc: Rpc) -> frozenset[str]:
    """Who may call; an RPC that states no policy has no list, and its server asks nobody."""
    return rpc.policy.allow if rpc.policy.declared else frozenset({"*"})


def _who(caller: str) -> str:
    return "any verified identity" if caller == "*" else caller
