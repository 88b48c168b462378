"""Who may call, how often, from how far, and what live policy must leave."""

from collections.abc import Iterator

from accord_checks.breaking.change import Found, Risk, rpc_rule
from accord_checks.elements import Rpc
from accord_checks.text import seconds, shown


@rpc_rule(
    "POLICY_CALLER_REMOVED",
    Risk.BREAKING,
    purpose="Nobody who may call an RPC is taken off its list.",
    why="their calls are refused with PERMISSION_DENIED",
    before='allow: ["spiffe://example.org/orders", "spiffe://example.org/mail"]',
    after='allow: ["spiffe://example.org/orders"]',
)
def caller_removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" does not cover either."""
    admitted = _admitted(new)
    gone = set() if "*" in admitted else _admitted(old) - admitted
    if gone:
        yield Found(
            f"{', '.join(sorted(_who(caller) for caller in gone))} may no longer call {new.short}",
            "see that it no longer does, then take it off",
            ("allow",),
        )


@rpc_rule(
    "POLICY_CALLER_ADDED",
    Risk.RISKY,
    purpose="Nobody new may call an RPC.",
    why="more services depend on it, and more can reach what it protects",
    before='allow: ["spiffe://example.org/orders"]',
    after='allow: ["spiffe://example.org/orders", "*"]',
)
def caller_added(old: Rpc, new: Rpc) -> Iterator[Found]:
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


@rpc_rule(
    "POLICY_LIMIT_CHANGED",
    Risk.RISKY,
    purpose="No priority changes, and no rate is set or lowered.",
    why="calls that were served are refused with RESOURCE_EXHAUSTED when there is much to do",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {rate: {per_second: 10}}",
)
def limited(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A rate that was raised or taken away is safe."""
    then, now = old.policy.limit, new.policy.limit
    if then.priority is not now.priority:
        yield Found(
            f"the priority of {new.short} went from {then.priority.name} to {now.priority.name}",
            "see who is shed first now",
            ("limit", "priority"),
        )
    if now.rate is not None and (
        then.rate is None
        or now.rate.per_second < then.rate.per_second
        or now.rate.burst < then.rate.burst
    ):
        yield Found(
            f"the rate of {new.short} went from {shown(then.rate)} to {shown(now.rate)}",
            "see that no caller needs more",
            ("limit", "rate"),
        )


@rpc_rule(
    "POLICY_DEPTH_LOWERED",
    Risk.BREAKING,
    purpose="No RPC is taken out of reach of calls that are nested as deep as before.",
    why="deeper calls are refused with CALL_TOO_DEEP",
    before="max_depth: 2",
    after="max_depth: 1",
)
def depth_lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Hops between the edge and the RPC."""
    then, now = old.policy.max_depth, new.policy.max_depth
    if now < then:
        yield Found(
            f"max_depth of {new.short} went from {then} to {now}",
            "see that nobody calls it from further down",
            ("max_depth",),
        )


@rpc_rule(
    "POLICY_DEPTH_RAISED",
    Risk.RISKY,
    purpose="No RPC is put in reach of calls that are nested deeper than before.",
    why="each synchronous hop multiplies failures and adds latency",
    before="max_depth: 1",
    after="max_depth: 2",
)
def depth_raised(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Hops between the edge and the RPC."""
    then, now = old.policy.max_depth, new.policy.max_depth
    if now > then:
        yield Found(
            f"max_depth of {new.short} went from {then} to {now}",
            "let an event carry what is further away",
            ("max_depth",),
        )


@rpc_rule(
    "POLICY_FLOOR_LOWERED",
    Risk.RISKY,
    purpose="No floor of live policy is lowered.",
    why="an operator can take away what was protected",
    before="timeout: {seconds: 5} floor: {timeout: {seconds: 2}}",
    after="timeout: {seconds: 5} floor: {timeout: {seconds: 1}}",
)
def floor_lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of the timeout and of the attempts."""
    then, now = old.policy.floor, new.policy.floor
    if now.timeout < then.timeout:
        yield Found(
            f"floor.timeout of {new.short} went from {seconds(then.timeout)} to "
            f"{seconds(now.timeout)}",
            "keep it, or say why it is no longer needed",
            ("floor", "timeout"),
        )
    if now.max_attempts < then.max_attempts:
        yield Found(
            f"floor.max_attempts of {new.short} went from {then.max_attempts} to "
            f"{now.max_attempts}",
            "keep it, or say why it is no longer needed",
            ("floor", "max_attempts"),
        )
