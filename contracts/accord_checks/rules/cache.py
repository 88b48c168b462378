"""Answers that callers may keep."""

from collections.abc import Iterator
from typing import Final

from accord_checks.model import Contracts
from accord_checks.rule import Finding, rule

_EXAMPLE: Final = """
rpc GetThing(GetThingRequest) returns (GetThingResponse) {{
  option idempotency_level = {level};
  option (accord.v1.policy) = {{
    timeout: {{seconds: 2}}
    allow: ["*"]
    cache: {{
      ttl: {{seconds: 30}}
      invalidated_by: ["example.v1.ThingService/{by}"]
    }}
  }};
}}
rpc AddThing(AddThingRequest) returns (AddThingResponse) {{
  option (accord.v1.policy) = {{
    timeout: {{seconds: 2}}
    idempotency: {{key: KEY_REQUIRED}}
    allow: ["*"]
  }};
}}
"""
_GOOD: Final = _EXAMPLE.format(level="NO_SIDE_EFFECTS", by="AddThing")


@rule(
    "ACCORD_CACHE_READS",
    purpose="An RPC whose answers may be kept is unary and has no side effects.",
    why="a call that is answered from the cache does not do what the caller asked for",
    bad=_EXAMPLE.format(level="IDEMPOTENT", by="AddThing"),
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
    bad=_EXAMPLE.format(level="NO_SIDE_EFFECTS", by="PutThing"),
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
