"""Messages that are published."""

from collections.abc import Iterator
from operator import gt, lt, ne
from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.breaking_rules.change import ChangeRule, Found, Risk, change_rule, moved
from accord_checks.contracts import field_type, reachable
from accord_checks.declarations import Event

_KEEP: Final = "keep it, or add another event beside it"
_EVENT = """
message ThingAdded {{
  option (accord.v1.event) = {{
    subject: "{subject}"
    version: {version}
    key: "{key}"
  }};
  string thing_id = 1;
  string {field} = 2;
}}
"""


def _example(
    subject: str = "things.thing.added",
    version: int = 1,
    key: str = "thing_id",
    field: str = "name",
) -> str:
    """An example of an event."""
    return _EVENT.format(subject=subject, version=version, key=key, field=field)


REMOVED: Final = ChangeRule(
    "POLICY_EVENT_REMOVED",
    Risk.BREAKING,
    "No event stops being one.",
    "consumers wait for it in vain",
    _example().strip("\n"),
    "message ThingAdded {\n  string thing_id = 1;\n  string name = 2;\n}",
)
"""Found by `compare`: there is nothing left to compare with."""


@change_rule(
    "POLICY_EVENT_SUBJECT_CHANGED",
    Risk.BREAKING,
    purpose="No event is published under another subject.",
    why="consumers of the old subject no longer get it",
    before=_example(),
    after=_example(subject="things.thing.created"),
)
def subject(old: Event, new: Event) -> Iterator[Found]:
    """The subject."""
    return moved(old, new, "subject", ne, _KEEP, "the subject")


@change_rule(
    "POLICY_EVENT_KEY_CHANGED",
    Risk.BREAKING,
    purpose="No event is ordered by another field.",
    why="consumers get events of one entity out of order",
    before=_example(),
    after=_example(key="name"),
)
def key(old: Event, new: Event) -> Iterator[Found]:
    """The key."""
    return moved(old, new, "key", ne, _KEEP, "the key")


@change_rule(
    "POLICY_EVENT_VERSION_LOWERED",
    Risk.BREAKING,
    purpose="The version of an event only grows.",
    why="consumers read it with an older meaning",
    before=_example(version=2),
    after=_example(version=1),
)
def version_lowered(old: Event, new: Event) -> Iterator[Found]:
    """A smaller version."""
    return moved(old, new, "version", lt, f"write {old.policy.version} or more", "the version")


@change_rule(
    "POLICY_EVENT_VERSION_RAISED",
    Risk.RISKY,
    purpose="The meaning of an event stays as it is.",
    why="consumers have to understand both versions",
    before=_example(),
    after=_example(version=2),
)
def version_raised(old: Event, new: Event) -> Iterator[Found]:
    """A greater version."""
    instead = "see that every consumer knows it before it is published"
    return moved(old, new, "version", gt, instead, "the version")


@change_rule(
    "POLICY_EVENT_FIELD_REMOVED",
    Risk.BREAKING,
    purpose="No field of an event is taken away, renamed or given another type.",
    why="consumers that read it get nothing, or something else",
    before=_example(),
    after=_example(field="title"),
)
def field_removed(old: Event, new: Event) -> Iterator[Found]:
    """Fields of the payload, nested messages included, by number; reserved or not."""
    now = {message.full_name: message for message in reachable(new.descriptor)}
    for message in reachable(old.descriptor):
        found = now.get(message.full_name)
        if found is None or message.GetOptions().map_entry:
            continue  # said of the field that holds it
        after = {field.number: field for field in found.fields}
        for field in message.fields:
            wrong = _wrong(field, after.get(field.number))
            if wrong:
                name = f"{message.name}.{field.name}"
                what = f"{name}, which {new.short} carries, {wrong}"
                yield Found(what, "keep the field and add another beside it", f"{name} {wrong}")


def _wrong(old: pb.FieldDescriptor, new: pb.FieldDescriptor | None) -> str | None:
    if new is None:
        return "was taken away"
    if new.name != old.name:
        return f"is called {new.name} now"
    if _type(new) != _type(old):
        return "has another type now"
    return None


def _type(field: pb.FieldDescriptor) -> tuple[object, ...]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return tuple(_type(part) for part in field.message_type.fields)  # its key and its value
    return field_type(field)
