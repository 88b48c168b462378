"""How often an RPC may be called, from how far, and what live policy must leave of that."""

import math
from collections.abc import Iterator
from operator import lt
from typing import Final

from accord.policies.types import Priority
from accord_checks.breaking_rules.change import Found, Risk, change_rule, gone, less, moved, raised
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_LIMIT_CHANGED",
    Risk.RISKY,
    purpose="No limit is set where there was none, and no RPC is shed earlier.",
    why="calls that were served are refused with RESOURCE_EXHAUSTED when there is much to do",
    before="limit: {}",
    after="limit: {rate: {per_second: 10}}",
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A first limit, rate or bound, a lower priority; a rate that was raised is safe."""
    yield from moved(old, new, "limit.priority", _later, "see who is shed first", "the priority")
    for path in ("limit.rate", "limit.max_concurrent"):
        yield from moved(old, new, path, _begun, _MORE)


_MORE: Final = "see that no caller needs more"


def _later(now: Priority | None, then: Priority | None) -> bool:
    return now is not None and (then is None or now > then)


def _begun(now: object, then: object) -> bool:
    return then in (None, math.inf) and now not in (None, math.inf)


@change_rule(
    "POLICY_LIMIT_LOWERED",
    Risk.BREAKING,
    purpose="No rate and no bound of concurrent calls is lowered.",
    why="calls that were served are refused with RESOURCE_EXHAUSTED",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {rate: {per_second: 10}}",
)
def lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of a limit that was there."""
    for path in ("limit.rate.per_second", "limit.rate.burst", "limit.max_concurrent"):
        yield from moved(old, new, path, lower, _MORE)


def lower(now: float | None, then: float | None) -> bool:
    """A bound that is there, and was greater."""
    return now is not None and then not in (None, math.inf) and less(now, then)


@change_rule(
    "POLICY_PRIORITY_RAISED",
    Risk.BREAKING,
    purpose="No RPC is put before others that it waited behind.",
    why="when there is much to do, they are shed in its place",
    before="limit: {priority: PRIORITY_SHEDDABLE}",
    after="limit: {priority: PRIORITY_CRITICAL}",
)
def priority_raised(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of an RPC that was shed at all."""
    instead = "ask whoever answers for the others"
    yield from moved(old, new, "limit.priority", lower, instead, "the priority")


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
    Risk.BREAKING,
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
    "limit.rate.per_second",
    "limit.rate.burst",
    "limit.max_concurrent",
    "breaker",
    "breaker.min_calls",
    "breaker.consecutive_failures",
    "max_depth",
    "stream.max_lifetime",
    "stream.idle",
    "edge.rate",
    "edge.rate.per_second",
    "edge.rate.burst",
)


@change_rule(
    "POLICY_BOUND_REMOVED",
    Risk.BREAKING,
    purpose="No bound of an RPC is taken away, or raised more than tenfold.",
    why="nothing protects its server, or whoever waits for it, any more",
    before="limit: {rate: {per_second: 100}}",
    after="limit: {}",
)
def bound_removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A timeout, a rate, a breaker and so on; another value is said by a rule of its own."""
    return lost(old, new)


def lost(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Bounds that are gone, or as good as that; of what is gone as a whole, only that."""
    said: set[str] = set()
    for path in _BOUNDS:
        if path.startswith("stream") and not new.policy.server_streaming:
            continue
        if path.startswith("edge") and new.policy.edge is None:
            continue
        if not any(path.startswith(f"{whole}.") for whole in said):
            for found in moved(old, new, path, gone, "keep it, or state a lower one"):
                said.add(path)
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
