"""How often an RPC may be called, from how far, and what live policy must leave of that."""

from collections.abc import Iterator
from operator import lt
from typing import Final

from accord.policies.rate_limit import RatePolicy
from accord.policies.types import Priority
from accord_checks.breaking_rules.change import Found, Risk, change_rule, gone, less, moved, raised
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_LIMIT_CHANGED",
    Risk.RISKY,
    purpose="No limit is set, no priority changes, and no rate or bound is set or lowered.",
    why="calls that were served are refused with RESOURCE_EXHAUSTED when there is much to do",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {rate: {per_second: 10}}",
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A limit that was taken away is safe, and a rate that was raised."""
    yield from moved(old, new, "limit.priority", _given, "see who is shed first", "the priority")
    instead = "see that no caller needs more"
    yield from moved(old, new, "limit.rate", _lower, instead, "the rate")
    yield from moved(old, new, "limit.max_concurrent", less, instead)


def _given(now: Priority | None, then: Priority | None) -> bool:
    return now is not None and now is not then


def _lower(now: RatePolicy | None, then: RatePolicy | None) -> bool:
    return now is not None and (
        then is None or now.per_second < then.per_second or now.burst < then.burst
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
    return moved(old, new, "max_depth", less, "see that nobody calls it from further down")


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
    instead = "let an event carry what is further away"
    return moved(old, new, "max_depth", raised, instead)


_BOUNDS: Final = (
    "timeout",
    "limit",
    "limit.rate",
    "limit.max_concurrent",
    "breaker",
    "max_depth",
    "stream.max_lifetime",
    "stream.idle",
)


@change_rule(
    "POLICY_BOUND_REMOVED",
    Risk.BREAKING,
    purpose="No bound of an RPC is taken away altogether.",
    why="nothing protects its server, or whoever waits for it, any more",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {}",
)
def bound_removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A timeout, a rate, a breaker and so on; another value is said by a rule of its own."""
    lost: set[str] = set()
    for path in _BOUNDS:
        whole = path.partition(".")[0]
        if whole in lost or (whole == "stream" and not new.policy.server_streaming):
            continue
        for found in moved(old, new, path, gone, "keep it, or state a greater one"):
            lost.add(path)
            yield found


@change_rule(
    "POLICY_FLOOR_LOWERED",
    Risk.BREAKING,
    purpose="No floor of live policy is lowered or taken away.",
    why="an operator can take away what was protected",
    before="timeout: {seconds: 5} floor: {timeout: {seconds: 2}}",
    after="timeout: {seconds: 5} floor: {timeout: {seconds: 1}}",
)
def floor_lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of the timeout and of the attempts."""
    for path in ("floor.timeout", "floor.max_attempts"):
        yield from moved(old, new, path, lt, "keep it, or say why it is no longer needed")
