"""Where in a file something is written, as a path of protobuf's SourceCodeInfo.

`buf` records the scalars inside an option that is written as one `{...}`, but neither the messages
around them nor each element of a list. `Positions.nearest` finds the best that is recorded.
"""

from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

SourcePath: TypeAlias = tuple[int, ...]

_File = descriptor_pb2.FileDescriptorProto
_HEAD: Final = (
    _File.SYNTAX_FIELD_NUMBER,
    _File.EDITION_FIELD_NUMBER,
    _File.PACKAGE_FIELD_NUMBER,
)
_DECLARATIONS: Final = frozenset(
    {"service", "method", "message_type", "nested_type", "field", "enum_type", "value"}
)
_DECLARING: Final = {
    kind.full_name: [(it.name, it.number) for it in kind.fields if it.name in _DECLARATIONS]
    for kind in descriptor_pb2.DESCRIPTOR.message_types_by_name.values()
}
"""Messages of protobuf's own -> the fields in which they hold declarations, with their numbers."""


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

    @property
    def comments(self) -> Collection[str]:
        """All comments above something."""
        return self._comments.values()

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


def paths(
    proto: Message, prefix: str = "", path: SourcePath = ()
) -> Iterator[tuple[str, SourcePath]]:
    """The full name of everything in a file that can have a comment, and its path.

    A value of an enum is named after it, "pkg.Color.COLOR_RED".

    Args:
        proto: a file, or what is in one.
        prefix: what full names in it begin with.
        path: its own path.
    """
    for field, number in _DECLARING[proto.DESCRIPTOR.full_name]:
        for index, inner in enumerate(getattr(proto, field)):
            name, place = prefix + inner.name, (*path, number, index)
            yield name, place
            yield from paths(inner, f"{name}.", place)
