"""Answers that callers may keep."""

from collections.abc import Iterator
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.lint_rules.examples import (
    ANYBODY,
    IDEMPOTENT,
    KEYED,
    READS,
    TIMEOUT,
    block,
    rpc_example,
)
from accord_checks.lint_rules.rule import Finding, rule


def _example(level: str, invalidated_by: str) -> str:
    invalidated = f'invalidated_by: ["example.v1.ThingService/{invalidated_by}"]'
    cache = block("cache", "ttl: {seconds: 30}", invalidated)
    kept = rpc_example("GetThing", TIMEOUT, ANYBODY, cache, level=level)
    return kept + rpc_example("AddThing", TIMEOUT, KEYED, ANYBODY)


_GOOD: Final = _example(READS, "AddThing")


@rule(
    "ACCORD_CACHE_READS",
    purpose="An RPC whose answers may be kept is unary and has no side effects.",
    why="a call that is answered from the cache does not do what the caller asked for",
    bad=_example(IDEMPOTENT, "AddThing"),
    good=_GOOD,
)
def reads(contracts: Contracts) -> Iterator[Finding]:
    """Caches on RPCs that change something or stream."""
    for rpc in contracts.own_rpcs:
        if rpc.written.HasField("cache") and not (rpc.reads and rpc.unary):
            wrong = "may change something" if rpc.unary else "is a stream"
            yield Finding(
                rpc.at("cache", inherited=False),
                f"the answers of {rpc.short} may be kept although it {wrong}",
                "write `option idempotency_level = NO_SIDE_EFFECTS`, or take `cache` away",
            )


@rule(
    "ACCORD_CACHE_INVALIDATED",
    purpose="What drops a kept answer is an RPC of these contracts that changes something.",
    why="callers see the old answer after their own write",
    bad=_example(READS, "PutThing"),
    good=_GOOD,
)
def invalidated(contracts: Contracts) -> Iterator[Finding]:
    """Invalidators that do not exist, or read; none at all beside RPCs that write."""
    for rpc in contracts.own_rpcs:
        if not rpc.written.HasField("cache"):
            continue
        for index, name in enumerate(rpc.written.cache.invalidated_by):
            by = contracts.rpcs.get(name)
            if by is None or by.reads:
                wrong = "is no RPC of these contracts" if by is None else "changes nothing"
                yield Finding(
                    rpc.at("cache", "invalidated_by", index),
                    f"{name!r}, which drops the answers of {rpc.short}, {wrong}",
                    "write the full name of an RPC that changes what is kept",
                )
        writers = [other.name for other in rpc.service.rpcs if not other.reads]
        if writers and not rpc.written.cache.invalidated_by:
            yield Finding(
                rpc.at("cache", inherited=False),
                f"nothing drops the answers of {rpc.short}",
                f'write `invalidated_by: ["{writers[0]}"]`',
            )
