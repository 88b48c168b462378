"""Second attempts."""

from collections.abc import Iterator
from typing import Final

from accord.contracts.model import Contracts
from accord.contracts.rule import Finding, rule
from accord.contracts.rules.problems import RETRIES, problems

_INSTEAD: Final = {
    "retry.max_attempts": "write `max_attempts: 3`",
    "retry.initial_backoff": "write `initial_backoff: {nanos: 100000000}`",
    "retry.max_backoff": "write `max_backoff: {seconds: 10}`",
    "retry.codes": "write `codes: [STATUS_CODE_UNAVAILABLE]`",
}


@rule(
    "ACCORD_RETRY_BOUNDS",
    purpose="A retry makes 2 to 5 attempts, waits between them, and lists codes of failures.",
    why="more attempts, or attempts without a pause, turn a slow server into a dead one",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    retry: {
      max_attempts: 10
      initial_backoff: {nanos: 100000000}
    }
    allow: ["*"]
  };
}
""",
    good="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    retry: {
      max_attempts: 3
      initial_backoff: {nanos: 100000000}
    }
    allow: ["*"]
  };
}
""",
)
def bounds(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    return problems(contracts, RETRIES, "write `retry: {max_attempts: 3}`", specific=_INSTEAD)


@rule(
    "ACCORD_RETRY_IDEMPOTENT",
    purpose="An RPC that is retried or hedged is idempotent, by its level or by a key.",
    why="a second attempt may act twice",
    bad="""
rpc AddThing(AddThingRequest) returns (AddThingResponse) {
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    retry: {max_attempts: 3}
    allow: ["*"]
  };
}
""",
    good="""
rpc AddThing(AddThingRequest) returns (AddThingResponse) {
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    retry: {max_attempts: 3}
    idempotency: {key: KEY_REQUIRED}
    allow: ["*"]
  };
}
""",
)
def idempotent(contracts: Contracts) -> Iterator[Finding]:
    """Retries and hedges of RPCs that promise nothing about repeats."""
    for rpc in contracts.own_rpcs:
        for option, done in (("retry", "retried"), ("hedge", "hedged")):
            if rpc.written.HasField(option) and not rpc.policy.idempotent:  # type: ignore[arg-type]
                yield Finding(
                    rpc.at(option, inherited=False),
                    f"{rpc.short} is {done} but not idempotent",
                    f"write `idempotency: {{key: KEY_REQUIRED}}`, declare an `idempotency_level` "
                    f"or take `{option}` away",
                )
