"""How long an RPC may take."""

from collections.abc import Iterator

from accord.contracts.model import Contracts
from accord.contracts.rule import Finding, rule
from accord.contracts.rules.problems import TIMEOUTS, problems


@rule(
    "ACCORD_TIMEOUT_STATED",
    purpose="Every RPC states how long it may take; a server stream, how long it may live.",
    why="callers wait for a default that nobody has chosen",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    allow: ["*"]
  };
}
""",
    good="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    allow: ["*"]
  };
}
""",
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """An own timeout, that of the service's defaults, or the longest life of a stream."""
    for rpc in contracts.own_rpcs:
        own = rpc.own is not None and rpc.own.HasField("timeout")
        if rpc.descriptor.server_streaming:
            if not own and not rpc.written.stream.HasField("max_lifetime"):
                yield Finding(
                    rpc.place,
                    f"{rpc.short} does not say how long its stream may live",
                    "write `stream: {max_lifetime: {seconds: 3600}}`",
                )
        elif not rpc.written.HasField("timeout"):
            yield Finding(
                rpc.place,
                f"{rpc.short} has no timeout",
                "write `timeout: {seconds: 2}` here or in the defaults of the service",
            )


@rule(
    "ACCORD_TIMEOUT_VALID",
    purpose="A timeout lies between 1 ms and 1 h, and an attempt's is not longer than the call's.",
    why="a server refuses to start with it",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    attempt_timeout: {seconds: 3}
    allow: ["*"]
  };
}
""",
    good="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    attempt_timeout: {nanos: 600000000}
    allow: ["*"]
  };
}
""",
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    instead = "write a time between 1 ms and 1 h, an attempt's not longer than `timeout`"
    return problems(contracts, TIMEOUTS, instead)
