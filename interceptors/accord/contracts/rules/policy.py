"""That a policy is there, has an owner, names its callers and can be enforced."""

from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from accord.contracts.model import Contracts
from accord.contracts.rule import Finding, rule
from accord.contracts.rules.problems import (
    ELSEWHERE,
    FLOORS,
    RESUMING,
    RETRIES,
    TIMEOUTS,
    problems,
)


@rule(
    "ACCORD_POLICY_STATED",
    purpose="Every service states a policy.",
    why="nobody knows how long its RPCs may take, who may call them or what a repeat does",
    bad="""
service ThingService {
  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
""",
    good="""
service ThingService {
  option (accord.v1.service) = {
    owner: "team-things"
    defaults: {
      timeout: {seconds: 2}
      allow: ["*"]
    }
  };

  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
""",
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """Services without any option of Accord, once each."""
    for service in contracts.own_services:
        if service.rpcs and not service.stated:
            yield Finding(
                service.place,
                f"{service.descriptor.name} states no policy",
                'import "accord/v1/policy.proto" and write `option (accord.v1.service) = {owner: '
                '"..." defaults: {timeout: {seconds: 2} allow: ["*"]}};`',
            )


@rule(
    "ACCORD_OWNER_STATED",
    purpose="Every service that states a policy names its owner.",
    why="nobody can be asked before the contract changes",
    bad="""
service ThingService {
  option (accord.v1.service) = {
    defaults: {
      timeout: {seconds: 2}
      allow: ["*"]
    }
  };

  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
""",
    good="""
service ThingService {
  option (accord.v1.service) = {
    owner: "team-things"
    defaults: {
      timeout: {seconds: 2}
      allow: ["*"]
    }
  };

  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
""",
)
def owned(contracts: Contracts) -> Iterator[Finding]:
    """Services with a policy but without an owner."""
    for service in contracts.own_services:
        if service.stated and not (service.policy and service.policy.owner.strip()):
            yield Finding(
                service.option_place,
                f"{service.descriptor.name} has no owner",
                'write `owner: "team-..."` in `option (accord.v1.service)`',
            )


@rule(
    "ACCORD_CALLERS_STATED",
    purpose="Every RPC names the identities that may call it.",
    why="whoever can reach the port may call it, and nobody knows whom a change concerns",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
  };
}
""",
    good="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    allow: ["spiffe://example.org/orders"]
  };
}
""",
)
def callers(contracts: Contracts) -> Iterator[Finding]:
    """RPCs whose list of callers is empty."""
    for rpc in contracts.own_rpcs:
        if not rpc.written.allow:
            yield Finding(
                rpc.place,
                f"{rpc.short} does not say who may call it",
                'write `allow: ["spiffe://..."]`, or `allow: ["*"]` for every verified identity',
            )


@rule(
    "ACCORD_FLOOR_KEPT",
    purpose="A policy is not below its own floor.",
    why="a server refuses to start with it",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    floor: {
      timeout: {seconds: 3}
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
    floor: {
      timeout: {seconds: 1}
    }
    allow: ["*"]
  };
}
""",
)
def floor(contracts: Contracts) -> Iterator[Finding]:
    """Floors of timeouts and attempts that the policy itself does not reach."""
    instead = "lower the floor, or raise what it protects"
    return problems(contracts, FLOORS, instead)


@rule(
    "ACCORD_POLICY_VALID",
    purpose="A policy says nothing that the library refuses or does not know.",
    why="a server refuses to start with it, or leaves it out",
    bad="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    breaker: {failure_percent: 150}
    allow: ["*"]
  };
}
""",
    good="""
rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {
    timeout: {seconds: 2}
    breaker: {failure_percent: 50}
    allow: ["*"]
  };
}
""",
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library refuses, unless another rule says it, and fields it does not know."""
    covered = ELSEWHERE | FLOORS | RESUMING | RETRIES | TIMEOUTS
    instead = "write a value in the range that accord/v1/policy.proto states"
    yield from problems(contracts, covered, instead, others=True)
    for rpc in contracts.own_rpcs:
        for number in sorted(_unknown(rpc.own) if rpc.own is not None else ()):
            yield Finding(
                rpc.option_place,
                f"the policy of {rpc.short} has a field {number} that this version does not know",
                "install the version of `accord` whose accord/v1/policy.proto you import",
            )


def _unknown(message: Message) -> Iterator[int]:
    """Numbers of fields that the installed vocabulary lacks, at any depth."""
    unknown = UnknownFieldSet(message)
    yield from (unknown[index].field_number for index in range(len(unknown)))
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _unknown(inner)
