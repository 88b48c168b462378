"""Options on top of others."""

from typing import Final

from google.protobuf import duration_pb2
from google.protobuf.message import Message

_DURATION: Final = duration_pb2.Duration.DESCRIPTOR.full_name


def merge_options(changes: Message, into: Message) -> None:
    """Put what `changes` states into `into`: messages are merged, all else is replaced."""
    for descriptor, value in changes.ListFields():
        name = descriptor.name
        if descriptor.is_repeated:
            into.ClearField(name)
            getattr(into, name).extend(value)
        elif descriptor.message_type is None:
            setattr(into, name, value)
        elif descriptor.message_type.full_name == _DURATION:
            getattr(into, name).CopyFrom(value)
        else:
            getattr(into, name).SetInParent()
            merge_options(value, getattr(into, name))
