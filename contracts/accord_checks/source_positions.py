"""Where in a file something is written, as a path of protobuf's SourceCodeInfo.

`buf` records the scalars inside an option that is written as one `{...}`, but neither the messages
around them nor each element of a list. `Positions.nearest` finds the best that is recorded.
"""

from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

from google.protobuf import descriptor_pb2

SourcePath: TypeAlias = tuple[int, ...]

_File = descriptor_pb2.FileDescriptorProto
_Message = descriptor_pb2.DescriptorProto
_Enum = descriptor_pb2.EnumDescriptorProto
_METHODS: Final = descriptor_pb2.ServiceDescriptorProto.METHOD_FIELD_NUMBER
_HEAD: Final = (
    _File.SYNTAX_FIELD_NUMBER,
    _File.EDITION_FIELD_NUMBER,
    _File.PACKAGE_FIELD_NUMBER,
)


class Positions:
    """The positions that a file records; none if it was built without them."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._spans: dict[SourcePath, tuple[int, ...]] = {}
        self._comments: dict[SourcePath, str] = {}
        for location in file.source_code_info.location:
            path = tuple(location.path)
            self._spans.setdefault(path, tuple(location.span))
            if location.leading_comments:
                self._comments.setdefault(path, location.leading_comments)

    def nearest(self, path: SourcePath, floor: int, indexes: Collection[int] = ()) -> SourcePath:
        """The recorded path that says best where `path` is.

        In this order: the path itself; the first thing inside it; the list element that `buf`
        recorded for a whole `[...]`; what is around it, down to its first `floor` numbers.
        `indexes` are the places in `path` that hold the index of a list element.
        """
        for candidate in _candidates(path, floor, indexes):
            if candidate in self._spans:
                return candidate
            inside = [found for found in self._spans if found[: len(candidate)] == candidate]
            if inside:
                return min(inside, key=self._spans.__getitem__)
        return path[:floor]

    def line(self, path: SourcePath) -> int | None:
        """The line of a recorded path, from 1."""
        span = self._spans.get(path)
        return None if span is None else span[0] + 1

    def comment(self, path: SourcePath) -> str:
        """The comment above a recorded path; empty if there is none."""
        return self._comments.get(path, "")

    def head(self) -> list[str]:
        """The comments above `syntax`, `edition` and `package`."""
        return [self.comment((number,)) for number in _HEAD]


def _candidates(path: SourcePath, floor: int, indexes: Collection[int]) -> Iterator[SourcePath]:
    while len(path) > floor:
        yield path
        if len(path) - 1 in indexes:
            for index in range(path[-1] - 1, -1, -1):
                yield (*path[:-1], index)
        path = path[:-1]


def paths(file: _File) -> Iterator[tuple[str, SourcePath]]:
    """The full name of everything in a file that can have a comment, and its path.

    A value of an enum is named after it, "pkg.Color.COLOR_RED".
    """
    prefix = f"{file.package}." if file.package else ""
    for number, service in enumerate(file.service):
        path = (_File.SERVICE_FIELD_NUMBER, number)
        yield prefix + service.name, path
        for index, method in enumerate(service.method):
            yield f"{prefix}{service.name}.{method.name}", (*path, _METHODS, index)
    for number, message in enumerate(file.message_type):
        yield from _in_message(message, prefix, (_File.MESSAGE_TYPE_FIELD_NUMBER, number))
    for number, enum in enumerate(file.enum_type):
        yield from _in_enum(enum, prefix, (_File.ENUM_TYPE_FIELD_NUMBER, number))


def _in_message(
    message: _Message, prefix: str, path: SourcePath
) -> Iterator[tuple[str, SourcePath]]:
    name = prefix + message.name
    yield name, path
    for number, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _Message.FIELD_FIELD_NUMBER, number)
    for number, inner in enumerate(message.nested_type):
        yield from _in_message(
            inner, f"{name}.", (*path, _Message.NESTED_TYPE_FIELD_NUMBER, number)
        )
    for number, enum in enumerate(message.enum_type):
        yield from _in_enum(enum, f"{name}.", (*path, _Message.ENUM_TYPE_FIELD_NUMBER, number))


def _in_enum(enum: _Enum, prefix: str, path: SourcePath) -> Iterator[tuple[str, SourcePath]]:
    name = prefix + enum.name
    yield name, path
    for number, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _Enum.VALUE_FIELD_NUMBER, number)
