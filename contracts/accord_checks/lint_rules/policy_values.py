"""That what a policy says can be enforced, and is not said twice."""

from collections.abc import Iterator, Sequence

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from accord.policies.types import Code
from accord.v1 import edge_pb2, policy_pb2
from accord_checks.contracts import Contracts
from accord_checks.declarations import Place
from accord_checks.lint_rules.examples import allowing, block, get_thing
from accord_checks.lint_rules.rule import Finding, once, rule
from accord_checks.lint_rules.startup_errors import startup_errors


@rule(
    "ACCORD_LISTED_ONCE",
    purpose="No list of a policy has the same entry twice.",
    why="one of the two was meant to be another",
    bad=allowing("spiffe://example.org/orders", "spiffe://example.org/orders"),
    good=allowing("spiffe://example.org/orders", "spiffe://example.org/mail"),
)
@once
def listed_once(contracts: Contracts) -> Iterator[Finding]:
    """Callers, reasons, codes, steps of a saga, fields of a compensation, invalidating RPCs."""
    lists = ((rpc, *entries) for rpc in contracts.own_rpcs for entries in _lists(rpc.written))
    for rpc, steps, entries in lists:
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                shown = Code(entry).name if entry in tuple(Code) else repr(entry)
                what = f"{'.'.join(steps)} of {rpc.holder(steps[0])} has {shown} twice"
                yield Finding(rpc.at(*steps, index), what, "take one away, or write what was meant")


def _lists(
    written: policy_pb2.MethodPolicy,
) -> Iterator[tuple[tuple[str, ...], Sequence[str | int]]]:
    yield ("allow",), written.allow
    yield ("errors",), written.errors
    yield ("retry", "codes"), written.retry.codes
    yield ("saga", "steps"), written.saga.steps
    yield ("compensation", "fill"), [fill.field for fill in written.compensation.fill]
    yield ("cache", "invalidated_by"), written.cache.invalidated_by


@rule(
    "ACCORD_POLICY_VALID",
    purpose="A policy says nothing that the library refuses or does not know.",
    why="a server refuses to start with it, or leaves it out",
    bad=get_thing("breaker: {failure_percent: 150}"),
    good=get_thing("breaker: {failure_percent: 50}"),
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library refuses, unless another rule says it, and fields it does not know."""
    instead = "write a value in the range that accord/v1/policy.proto states"
    yield from startup_errors(contracts, instead)
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
        if rpc.policy.edge is not None:
            yield rpc.at("edge"), rpc.short, rpc.descriptor.GetOptions().Extensions[edge_pb2.edge]
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


@rule(
    "ACCORD_FLOOR_KEPT",
    purpose="A policy is not below its own floor.",
    why="a server refuses to start with it",
    bad=get_thing(block("floor", "timeout: {seconds: 3}")),
    good=get_thing(block("floor", "timeout: {seconds: 1}")),
)
def floor(contracts: Contracts) -> Iterator[Finding]:
    """Floors of timeouts and attempts that the policy itself does not reach."""
    return startup_errors(contracts, "lower the floor, or raise what it protects", "floor")
