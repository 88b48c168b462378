"""Messages that are published."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor as pb

from accord.v1 import policy_pb2
from accord_checks.contracts import Contracts
from accord_checks.declarations import Event, File
from accord_checks.lint_rules.rule import Finding, rule

_VOCABULARY: Final = policy_pb2.DESCRIPTOR.name
_EXAMPLE: Final = """
message ThingAdded {{
  option (accord.v1.event) = {{
    subject: "things.thing.added"
    version: 1
    key: "{key}"
  }};
  string thing_id = 1;
}}
"""
_GOOD: Final = _EXAMPLE.format(key="thing_id")


@rule(
    "ACCORD_EVENT_DECLARED",
    purpose="Every message of a file of events is an event, or a part of one.",
    why="it cannot be published: it has no subject, no version and no key",
    bad=_GOOD + "message ThingDropped {\n  string thing_id = 1;\n}",
    good=_GOOD,
)
def declared(contracts: Contracts) -> Iterator[Finding]:
    """In files called events.proto, or with another event: messages that nothing else uses."""
    used = _used(contracts)
    having = {event.file.name for event in contracts.events.values()}
    for file in contracts.own:
        if file.name in having or _for_events(file):
            for message in file.proto.message_type:
                name = f"{file.proto.package}.{message.name}".lstrip(".")
                if name not in used and name not in contracts.events:
                    yield Finding(
                        file.place(name),
                        f"{message.name} is no event, although its neighbours are",
                        "write `option (accord.v1.event)` with `subject`, `version` and `key`, or "
                        "move it to another file",
                    )


def _for_events(file: File) -> bool:
    return file.name.endswith("events.proto") and _VOCABULARY in file.proto.dependency


def _used(contracts: Contracts) -> set[str]:
    """Messages that fields hold or RPCs pass."""
    found = set()
    for file in contracts.files.values():
        waiting = list(file.proto.message_type)
        for message in waiting:
            waiting += message.nested_type
            found |= {field.type_name.lstrip(".") for field in message.field}
        for service in file.proto.service:
            for method in service.method:
                found |= {method.input_type.lstrip("."), method.output_type.lstrip(".")}
    return found


@rule(
    "ACCORD_EVENT_VALID",
    purpose="Every event has a subject, a version from 1 and a field that orders it.",
    why="it cannot be published",
    bad=_EXAMPLE.format(key="id"),
    good=_GOOD,
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    for event in contracts.own_events:
        if event.problem is not None:
            name = event.problem.field.removeprefix("event.")
            yield Finding(
                event.at(name),
                f"{name} of {event.short}: {event.problem.problem}",
                _INSTEAD[name],
            )
        elif (
            event.descriptor.fields_by_name[event.policy.key].type == pb.FieldDescriptor.TYPE_BYTES
        ):
            yield Finding(
                event.at("key"),
                f"key of {event.short}: field {event.policy.key!r} is bytes, no text",
                _INSTEAD["key"],
            )


_INSTEAD: Final = {
    "subject": 'write lower-case words with dots between, such as "orders.order.created"',
    "version": "write `version: 1`",
    "key": "name a field of the message that holds a single value, such as the id of the entity",
}


@rule(
    "ACCORD_EVENT_SUBJECT_UNIQUE",
    purpose="No two events have the same subject.",
    why="consumers of one are given the other",
    bad=_GOOD + _GOOD.replace("ThingAdded", "ThingDropped"),
    good=_GOOD + _GOOD.replace("ThingAdded", "ThingDropped").replace("added", "dropped"),
)
def unique(contracts: Contracts) -> Iterator[Finding]:
    """Each event that shares its subject."""
    subjects: dict[str, list[Event]] = defaultdict(list)
    for event in contracts.events.values():
        if event.policy.subject:
            subjects[event.policy.subject].append(event)
    for event in contracts.own_events:
        others = [other.name for other in subjects[event.policy.subject] if other is not event]
        if others:
            yield Finding(
                event.at("subject"),
                f"{event.short} has the subject {event.policy.subject!r} of {others[0]}",
                "write a subject of its own",
            )
