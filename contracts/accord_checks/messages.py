"""Messages of a file, where they are in it, and what they hold."""

from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2

from accord_checks.location import SourcePath

MESSAGES: Final = descriptor_pb2.FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_NESTED: Final = descriptor_pb2.DescriptorProto.NESTED_TYPE_FIELD_NUMBER


def messages(
    file: pb.FileDescriptor,
) -> Iterator[tuple[pb.Descriptor, SourcePath]]:
    """All messages of a file, nested ones too, with their paths."""
    for index, message in enumerate(file.message_types_by_name.values()):
        yield from _with_nested(message, (MESSAGES, index))


def _with_nested(
    message: pb.Descriptor, path: SourcePath
) -> Iterator[tuple[pb.Descriptor, SourcePath]]:
    yield message, path
    for index, nested in enumerate(message.nested_types):
        yield from _with_nested(nested, (*path, _NESTED, index))


def message_path(message: pb.Descriptor) -> SourcePath:
    """The path of a message in its file."""
    outer = message.containing_type
    if outer is not None:
        return (*message_path(outer), _NESTED, list(outer.nested_types).index(message))
    return (MESSAGES, list(message.file.message_types_by_name.values()).index(message))


def reachable(message: pb.Descriptor) -> Iterator[pb.Descriptor]:
    """A message and all that its fields hold, each once; protobuf's own types left out."""
    seen: set[str] = set()
    waiting = [message]
    while waiting:
        found = waiting.pop()
        if found.full_name in seen or found.file.package == "google.protobuf":
            continue
        seen.add(found.full_name)
        yield found
        waiting += [inner.message_type for inner in found.fields if inner.message_type is not None]
