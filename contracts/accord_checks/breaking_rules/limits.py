"""How often an RPC may be called, from how far, and what live policy must leave of that."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule, went
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_LIMIT_CHANGED",
    Risk.RISKY,
    purpose="No priority changes, and no rate is set or lowered.",
    why="calls that were served are refused with RESOURCE_EXHAUSTED when there is much to do",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {rate: {per_second: 10}}",
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A rate that was raised or taken away is safe."""
    then, now = old.policy.limit, new.policy.limit
    if then.priority is not now.priority:
        yield Found(
            went(f"the priority of {new.short}", then.priority, now.priority),
            "see who is shed first now",
            ("limit", "priority"),
        )
    if now.rate is not None and (
        then.rate is None
        or now.rate.per_second < then.rate.per_second
        or now.rate.burst < then.rate.burst
    ):
        yield Found(
            went(f"the rate of {new.short}", then.rate, now.rate),
            "see that no caller needs more",
            ("limit", "rate"),
        )


@change_rule(
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
            went(f"max_depth of {new.short}", then, now),
            "see that nobody calls it from further down",
            ("max_depth",),
        )


@change_rule(
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
            went(f"max_depth of {new.short}", then, now),
            "let an event carry what is further away",
            ("max_depth",),
        )


@change_rule(
    "POLICY_FLOOR_LOWERED",
    Risk.RISKY,
    purpose="No floor of live policy is lowered.",
    why="an operator can take away what was protected",
    before="timeout: {seconds: 5} floor: {timeout: {seconds: 2}}",
    after="timeout: {seconds: 5} floor: {timeout: {seconds: 1}}",
)
def floor_lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of the timeout and of the attempts."""
    for name in ("timeout", "max_attempts"):
        then, now = getattr(old.policy.floor, name), getattr(new.policy.floor, name)
        if now < then:
            yield Found(
                went(f"floor.{name} of {new.short}", then, now),
                "keep it, or say why it is no longer needed",
                ("floor", name),
            )
