"""That a policy is there, has an owner, names its callers and can be enforced."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from accord.policies.types import Code
from accord_checks.elements import Place, Rpc
from accord_checks.model import Contracts
from accord_checks.rule import Finding, rule
from accord_checks.rules.problems import (
    ELSEWHERE,
    FLOORS,
    RESUMING,
    RETRIES,
    TIMEOUTS,
    problems,
)
from accord_checks.rules.together import lacking

_EVERYBODY: Final = "*"
# SPIFFE-ID, section 2: a trust domain, and a path of a workload without empty or dotted parts.
_IDENTITY: Final = re.compile(
    r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+", re.ASCII
)
_ALLOWING: Final = """
rpc GetThing(GetThingRequest) returns (GetThingResponse) {{
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {{
    timeout: {{seconds: 2}}
    allow: [{}]
  }};
}}
"""


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
    why="with certificates nobody may call it, and nobody knows whom a change concerns",
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
    for place, name in lacking(contracts, lambda _: True, lambda rpc: bool(rpc.written.allow)):
        yield Finding(
            place,
            f"no caller is named for {name}",
            'write `allow: ["spiffe://..."]`, or `allow: ["*"]` for every verified identity',
        )


@rule(
    "ACCORD_CALLERS_VALID",
    purpose='Who may call is listed as SPIFFE identities, or as "*" alone.',
    why="the list admits other callers than it seems to",
    bad=_ALLOWING.format('"orders"'),
    good=_ALLOWING.format('"spiffe://example.org/orders"'),
)
def identities(contracts: Contracts) -> Iterator[Finding]:
    """Entries that are no identity (SPIFFE-ID, section 2), and names beside "*"."""
    found = (finding for rpc in contracts.own_rpcs for finding in _misnamed(rpc))
    yield from dict.fromkeys(found)  # a default is found once


def _misnamed(rpc: Rpc) -> Iterator[Finding]:
    holder = rpc.holder("allow")
    for index, caller in enumerate(rpc.written.allow):
        place = rpc.at("allow", index)
        if caller == _EVERYBODY:
            if len(set(rpc.written.allow)) > 1:
                what = f'allow of {holder} has "*" beside names, which then mean nothing'
                yield Finding(place, what, "take the names away, or the `*`")
        elif caller.strip() and not _IDENTITY.fullmatch(caller):
            what = f"allow of {holder} has {caller!r}, which no certificate can say"
            yield Finding(place, what, 'write "spiffe://<trust domain>/<path>", or "*"')


@rule(
    "ACCORD_LISTED_ONCE",
    purpose="No list of a policy has the same entry twice.",
    why="one of the two was meant to be another",
    bad=_ALLOWING.format('"spiffe://example.org/orders", "spiffe://example.org/orders"'),
    good=_ALLOWING.format('"spiffe://example.org/orders", "spiffe://example.org/mail"'),
)
def once(contracts: Contracts) -> Iterator[Finding]:
    """Callers, reasons, codes, steps of a saga, fields of a compensation, invalidating RPCs."""
    found = (finding for rpc in contracts.own_rpcs for finding in _repeated(rpc))
    yield from dict.fromkeys(found)


def _repeated(rpc: Rpc) -> Iterator[Finding]:
    written = rpc.written
    lists: tuple[tuple[tuple[str, ...], Sequence[str | int]], ...] = (
        (("allow",), written.allow),
        (("errors",), written.errors),
        (("retry", "codes"), written.retry.codes),
        (("saga", "steps"), written.saga.steps),
        (("compensation", "fill"), [fill.field for fill in written.compensation.fill]),
        (("cache", "invalidated_by"), written.cache.invalidated_by),
    )
    for steps, entries in lists:
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                shown = Code(entry).name if entry in tuple(Code) else repr(entry)
                what = f"{'.'.join(steps)} of {rpc.holder(steps[0])} has {shown} twice"
                yield Finding(rpc.at(*steps, index), what, "take one away, or write what was meant")


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
    for place, name, option in _options(contracts):
        for number in sorted(set(_unknown(option))):
            yield Finding(
                place,
                f"the policy of {name} has a field {number} that this version does not know",
                "install the version of `accord` whose accord/v1/policy.proto you import",
            )


def _options(contracts: Contracts) -> Iterator[tuple[Place, str, Message]]:
    """All options of Accord, whose they are and where."""
    for service in contracts.own_services:
        if service.policy is not None:
            yield service.option_place, service.descriptor.name, service.policy
    for rpc in contracts.own_rpcs:
        if rpc.own is not None:
            yield rpc.option_place, rpc.short, rpc.own
    for event in contracts.own_events:
        yield event.option_place, event.descriptor.name, event.raw


def _unknown(message: Message) -> Iterator[int]:
    """Numbers of fields that the installed vocabulary lacks, at any depth."""
    unknown = UnknownFieldSet(message)
    yield from (unknown[index].field_number for index in range(len(unknown)))
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _unknown(inner)
