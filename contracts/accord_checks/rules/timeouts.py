"""How long an RPC may take."""

from collections.abc import Iterator

from accord_checks.elements import Rpc
from accord_checks.model import Contracts
from accord_checks.rule import Finding, rule
from accord_checks.rules.problems import TIMEOUTS, problems
from accord_checks.rules.together import lacking


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
    for place, name in lacking(contracts, _answers_once, lambda r: r.written.HasField("timeout")):
        yield Finding(
            place,
            f"no timeout is stated for {name}",
            "write `timeout: {seconds: 2}` in its policy or in the defaults of the service",
        )
    for place, name in lacking(contracts, lambda rpc: not _answers_once(rpc), _ends):
        yield Finding(
            place,
            f"no longest life is stated for the stream of {name}",
            "write `stream: {max_lifetime: {seconds: 3600}}`",
        )


def _answers_once(rpc: Rpc) -> bool:
    return not rpc.descriptor.server_streaming


def _ends(stream: Rpc) -> bool:
    own = stream.own is not None and stream.own.HasField("timeout")
    return own or stream.written.stream.HasField("max_lifetime")


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
