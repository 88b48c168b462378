"""Streams that the server writes."""

from collections.abc import Iterator

from accord.contracts.model import Contracts
from accord.contracts.rule import Finding, rule
from accord.contracts.rules.problems import RESUMING, problems


@rule(
    "ACCORD_STREAM_RESUMABLE",
    purpose="A server stream can be resumed after a drop, or says why not.",
    why="a caller whose connection breaks has a gap, or everything again",
    bad="""
rpc WatchThing(WatchThingRequest) returns (stream WatchThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    stream: {max_lifetime: {seconds: 3600}}
    allow: ["*"]
  };
}
""",
    good="""
rpc WatchThing(WatchThingRequest) returns (stream WatchThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    stream: {
      max_lifetime: {seconds: 3600}
      not_resumable: "It shows the present only; a caller that lost it begins again."
    }
    allow: ["*"]
  };
}
""",
)
def resumable(contracts: Contracts) -> Iterator[Finding]:
    """Server streams with neither a token nor a reason, and tokens that are none."""
    for rpc in contracts.own_rpcs:
        method, written = rpc.descriptor, rpc.written
        if not method.server_streaming or method.client_streaming:
            continue
        if not written.HasField("resume") and not written.stream.not_resumable.strip():
            yield Finding(
                rpc.place,
                f"{rpc.short} cannot be resumed and does not say why",
                'write `resume: {request_field: "after_sequence" response_field: "sequence"}`, or '
                '`stream: {not_resumable: "..."}`',
            )
    instead = "name an int64 or uint64 field of the request and one of the response"
    yield from problems(contracts, RESUMING, instead)
