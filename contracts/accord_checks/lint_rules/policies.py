"""That a policy is there, has an owner, says nothing twice and can be enforced."""

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from accord.policies.codes import Code
from accord_checks.contracts import Contracts
from accord_checks.declarations import Place, Rpc
from accord_checks.lint_rules.examples import allowing, get_thing, service_example
from accord_checks.lint_rules.rule import Finding, rule
from accord_checks.lint_rules.startup_errors import (
    ELSEWHERE,
    FLOORS,
    RESUMING,
    RETRIES,
    TIMEOUTS,
    problems,
)

_DEFAULTS: Final = 'defaults: {\n  timeout: {seconds: 2}\n  allow: ["*"]\n}'


@rule(
    "ACCORD_POLICY_STATED",
    purpose="Every service states a policy.",
    why="nobody knows how long its RPCs may take, who may call them or what a repeat does",
    bad=service_example(),
    good=service_example('owner: "team-things"', _DEFAULTS),
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """Services without any option of Accord, once each."""
    for service in contracts.own_services:
        if service.rpcs and not service.stated:
            yield Finding(
                service.place,
                f"{service.short} states no policy",
                'import "accord/v1/policy.proto" and write `option (accord.v1.service) = {owner: '
                '"..." defaults: {timeout: {seconds: 2} allow: ["*"]}};`',
            )


@rule(
    "ACCORD_OWNER_STATED",
    purpose="Every service that states a policy names its owner.",
    why="nobody can be asked before the contract changes",
    bad=service_example(_DEFAULTS),
    good=service_example('owner: "team-things"', _DEFAULTS),
)
def owned(contracts: Contracts) -> Iterator[Finding]:
    """Services with a policy but without an owner."""
    for service in contracts.own_services:
        if service.stated and not (service.policy and service.policy.owner.strip()):
            yield Finding(
                service.option_place,
                f"{service.short} has no owner",
                'write `owner: "team-..."` in `option (accord.v1.service)`',
            )


@rule(
    "ACCORD_LISTED_ONCE",
    purpose="No list of a policy has the same entry twice.",
    why="one of the two was meant to be another",
    bad=allowing("spiffe://example.org/orders", "spiffe://example.org/orders"),
    good=allowing("spiffe://example.org/orders", "spiffe://example.org/mail"),
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
    bad=get_thing("floor: {\n  timeout: {seconds: 3}\n}"),
    good=get_thing("floor: {\n  timeout: {seconds: 1}\n}"),
)
def floor(contracts: Contracts) -> Iterator[Finding]:
    """Floors of timeouts and attempts that the policy itself does not reach."""
    instead = "lower the floor, or raise what it protects"
    return problems(contracts, FLOORS, instead)


@rule(
    "ACCORD_POLICY_VALID",
    purpose="A policy says nothing that the library refuses or does not know.",
    why="a server refuses to start with it, or leaves it out",
    bad=get_thing("breaker: {failure_percent: 150}"),
    good=get_thing("breaker: {failure_percent: 50}"),
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
            yield service.option_place, service.short, service.policy
    for rpc in contracts.own_rpcs:
        if rpc.own is not None:
            yield rpc.option_place, rpc.short, rpc.own
    for event in contracts.own_events:
        yield event.option_place, event.short, event.policy


def _unknown(message: Message) -> Iterator[int]:
    """Numbers of fields that the installed vocabulary lacks, at any depth."""
    unknown = UnknownFieldSet(message)
    yield from (unknown[index].field_number for index in range(len(unknown)))
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _unknown(inner)
