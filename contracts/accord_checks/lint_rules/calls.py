"""What an RPC calls while it is being handled."""

from collections.abc import Iterator
from typing import Final

from accord.policies.deadline import hop_reserve
from accord_checks.contracts import Contracts
from accord_checks.declarations import Rpc
from accord_checks.formatting import duration_seconds, seconds
from accord_checks.lint_rules.examples import ANYBODY, READS, TIMEOUT, call_example, rpc_example
from accord_checks.lint_rules.rule import Finding, rule

MOST_HOPS: Final = 2
"""Synchronous hops below the edge."""


def _calling(*calls: tuple[str, str]) -> str:
    """The example's GetThing with some calls: methods with their timeouts."""
    listed = (call_example(method, timeout) for method, timeout in calls)
    return rpc_example("GetThing", TIMEOUT, ANYBODY, *listed, level=READS)


def _called(option: str = "attempt_timeout: {nanos: 400000000}") -> str:
    """The example's GetPart with an option."""
    return rpc_example("GetPart", "timeout: {seconds: 1}", option, ANYBODY, level=READS)


_GOOD: Final = _calling(("GetPart", "{nanos: 900000000}")) + _called()


@rule(
    "ACCORD_CALL_EXISTS",
    purpose="A declared call names an RPC of these contracts and states what it allows for it.",
    why="the nested call gets no timeout of its own and no check sees it",
    bad=_calling(("GetPiece", "{nanos: 900000000}")) + _called(),
    good=_GOOD,
)
def exists(contracts: Contracts) -> Iterator[Finding]:
    """Calls of unknown RPCs, calls without a timeout."""
    for rpc in contracts.own_rpcs:
        for index, call in enumerate(rpc.written.calls):
            if call.method not in contracts.rpcs:
                yield Finding(
                    rpc.at("calls", index, "method"),
                    f"{rpc.short} calls {call.method!r}, which is no RPC of these contracts",
                    'write the full name of one, such as "pkg.v1.Service/Method"',
                )
            whole = 0 <= call.timeout.nanos < 1_000_000_000
            if not (whole and 0.001 <= duration_seconds(call.timeout) <= 3600):
                kind = "valid timeout" if call.HasField("timeout") else "timeout"
                yield Finding(
                    rpc.at("calls", index, "timeout"),
                    f"{rpc.short} states no {kind} for its call of {call.method}",
                    "write `timeout: {seconds: 1}`",
                )


@rule(
    "ACCORD_CALLS_FIT",
    purpose="The timeouts of an RPC's calls, one after the other, and a reserve fit into its own.",
    why="it runs out of time while a call it waits for is still within its own",
    bad=_calling(("GetPart", "{seconds: 1}"), ("GetPart", "{seconds: 1}")) + _called(),
    good=_GOOD,
)
def fit(contracts: Contracts) -> Iterator[Finding]:
    """Calls that add up to more than their caller has."""
    for rpc in contracts.own_rpcs:
        own = rpc.policy.timeout
        timeouts = [duration_seconds(call.timeout) for call in rpc.written.calls]
        if own is None or not timeouts:
            continue
        needed = sum(timeouts) + hop_reserve(own)
        if needed > own + 1e-9:
            longest = timeouts.index(max(timeouts))
            yield Finding(
                rpc.at("calls", longest, "timeout"),
                f"the calls of {rpc.short} may take {seconds(needed)} with the reserve, itself only"
                f" {seconds(own)}",
                "shorten the timeouts of its calls or lengthen its own",
            )


@rule(
    "ACCORD_CALL_ROOM",
    purpose="A call allows time for one attempt of the callee, and not more than the callee takes.",
    why="the caller gives up on an answer that is on its way, or waits for one that cannot come",
    bad=_calling(("GetPart", "{nanos: 300000000}")) + _called(),
    good=_GOOD,
)
def room(contracts: Contracts) -> Iterator[Finding]:
    """Calls shorter than an attempt of the callee, or longer than the callee ever takes."""
    for rpc in contracts.own_rpcs:
        for index, call in enumerate(rpc.written.calls):
            callee, allowed = contracts.rpcs.get(call.method), duration_seconds(call.timeout)
            if callee is None or allowed <= 0:
                continue
            needed, longest = _attempt(callee), callee.policy.timeout
            if allowed < needed:
                yield Finding(
                    rpc.at("calls", index, "timeout"),
                    f"{rpc.short} allows {seconds(allowed)} for {callee.short}, one attempt of "
                    f"which takes up to {seconds(needed)}",
                    f"write at least {seconds(needed)}",
                )
            elif longest is not None and allowed > longest:
                yield Finding(
                    rpc.at("calls", index, "timeout"),
                    f"{rpc.short} allows {seconds(allowed)} for {callee.short}, whose own timeout "
                    f"is {seconds(longest)}",
                    f"write {seconds(longest)} or less",
                )


def _attempt(rpc: Rpc) -> float:
    """Seconds that one attempt may need: what it states, and the calls that it makes."""
    nested = sum(duration_seconds(call.timeout) for call in rpc.written.calls)
    reserve = hop_reserve(rpc.policy.timeout or 0.0) if nested else 0.0
    return max(rpc.policy.attempt_timeout or 0.0, nested + reserve)


@rule(
    "ACCORD_CALL_DEPTH",
    purpose="No chain of calls is longer than two hops below the edge, or than an RPC allows.",
    why="each hop multiplies failures and adds latency, and a server refuses deeper calls",
    bad=_calling(("GetPart", "{seconds: 1}")) + _called("max_depth: 0"),
    good=_GOOD,
)
def depth(contracts: Contracts) -> Iterator[Finding]:
    """Calls that are reached too deep, and RPCs that allow more than two hops."""
    graph = contracts.calls
    for rpc in contracts.own_rpcs:
        allowed = rpc.policy.max_depth
        if allowed is not None and allowed > MOST_HOPS:
            yield Finding(
                rpc.at("max_depth"),
                f"max_depth of {rpc.short} is {allowed}",
                f"write {MOST_HOPS} or less, and let an event carry what is further away",
            )
        for index, callee in graph.calls(rpc):
            chain = graph.longest_chain(rpc)
            limit = callee.policy.max_depth
            limit = MOST_HOPS if limit is None else min(limit, MOST_HOPS)
            if chain is not None and len(chain) > limit:
                way = _way([*chain, callee])
                yield Finding(
                    rpc.at("calls", index, "method"),
                    f"{way} reaches {callee.short} at depth {len(chain)}, the most is {limit}",
                    "publish an event instead of this call, or call it from further up",
                )


def _way(rpcs: list[Rpc]) -> str:
    """Who calls whom, of a long chain only its ends."""
    names = [rpc.short for rpc in rpcs]
    if len(names) > 6:
        names[3:-3] = ["..."]
    return " -> ".join(names)


@rule(
    "ACCORD_CALL_CYCLE",
    purpose="No RPC calls itself, directly or through others.",
    why="under load every server of the circle waits for itself",
    bad=_calling(("GetThing", "{seconds: 1}")),
    good=_GOOD,
)
def cycle(contracts: Contracts) -> Iterator[Finding]:
    """Each declared call that lies on a circle."""
    graph = contracts.calls
    for rpc in contracts.own_rpcs:
        for index, callee in graph.calls(rpc):
            way = graph.way(callee, rpc)
            if way is not None:
                yield Finding(
                    rpc.at("calls", index, "method"),
                    f"{_way([rpc, *way])} is a circle of calls",
                    "take one of the calls away, or publish an event instead",
                )
