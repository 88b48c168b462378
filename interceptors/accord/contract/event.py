"""The event options of a message."""

import re
from functools import cache

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from accord.contract.policy_types import ContractError, EventPolicy
from accord.v1 import policy_pb2

_SUBJECT = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def event_policy(message: Message | type[Message] | pb.Descriptor) -> EventPolicy | None:
    """The event options of a message, or None if it is not an event. Raises ContractError."""
    found = message if isinstance(message, pb.Descriptor) else message.DESCRIPTOR
    return _event(found.full_name)


def read_event(message: pb.Descriptor) -> EventPolicy | None:
    """The event options of a message of any descriptor pool; None if it is not an event.

    Raises ContractError. Nothing is kept.
    """
    options = message.GetOptions()
    if not options.HasExtension(policy_pb2.event):
        return None
    raw = options.Extensions[policy_pb2.event]

    def refuse(field: str, problem: str) -> ContractError:
        return ContractError(message.file.name, message.full_name, f"event.{field}", problem)

    if not _SUBJECT.fullmatch(raw.subject):
        raise refuse("subject", f"{raw.subject!r} is not a subject such as 'orders.order.created'")
    if raw.version < 1:
        raise refuse("version", "must be at least 1")
    key = message.fields_by_name.get(raw.key)
    if key is None:
        raise refuse("key", f"{message.full_name} has no field {raw.key!r}")
    if key.is_repeated or key.type == pb.FieldDescriptor.TYPE_MESSAGE:
        raise refuse("key", f"field {raw.key!r} is not a single value")
    return EventPolicy(raw.subject, raw.version, raw.key)


@cache
def _event(full_name: str) -> EventPolicy | None:
    return read_event(descriptor_pool.Default().FindMessageTypeByName(full_name))
