"""Messages as they go over the wire, with everything in them: made from contracts at a release.

Each message type gets a few cases: every field set, each alternative of each oneof, the extremes of
each type (down to the messages directly in it: deeper ones have cases of their own), and what only
a newer version could send (a field and enum values that nobody knows).
All are derived from names and types alone, so the same contract always gives the same bytes.
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message

T = TypeVar("T")

WELL_KNOWN: Final = "google.protobuf"
OWN: Final = ("accord.", "shop.")
"""Packages whose messages are ours."""

NUMBER_OF_THE_FUTURE: Final = (1 << 29) - 1
"""The highest number that a field may have: no contract of ours will ever come to use it."""
VALUE_OF_THE_FUTURE: Final = (1 << 31) - 1
"""The highest number of an enum value."""

DEPTH: Final = 6
"""Messages within messages that are filled; a type that contains itself has to end somewhere."""

_F = FieldDescriptor
_INTEGERS: Final = {
    _F.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    _F.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    _F.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    _F.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class Contracts:
    """The message types of an image, in a `pool` of their own."""

    def __init__(self, image: bytes) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self.files: Sequence[FileDescriptor] = [
            self.pool.AddSerializedFile(file.SerializeToString())
            for file in descriptor_pb2.FileDescriptorSet.FromString(image).file
        ]

    def messages(self) -> Iterator[Descriptor]:
        """Our own message types."""
        for file in self.files:
            if f"{file.package}.".startswith(OWN):
                for message in file.message_types_by_name.values():
                    yield from _with_nested(message)


def to_json(
    message: Message,
    pool: descriptor_pool.DescriptorPool | None = None,
    *,
    numbers: bool = False,
) -> Any:
    """What a message says: what is unset, or unknown to its class, is left out.

    Messages that are packed in it are known in `pool`, by default that of this process; `numbers`:
    enum values as numbers, not by name.
    """
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        use_integers_for_enums=numbers,
        descriptor_pool=pool,
    )


@dataclass(frozen=True, slots=True)
class _Values:
    """Which values fields are given."""

    extreme: int | None = None
    """0 for the least of the type, 1 for the greatest, None for one that depends on the field."""
    future: bool = False
    """Whether enums have a value that nobody knows."""

    def of(self, field: Any, item: int = 0) -> Any:
        """A value of a field that is no message.

        It is not the default, or it would not be sent; but half of a list of booleans has to be.
        """
        if field.type == _F.TYPE_ENUM:
            if self.future:
                return VALUE_OF_THE_FUTURE
            known = [value.number for value in field.enum_type.values if value.number]
            return self._one(known[(field.number + item) % len(known)], min(known), max(known))
        if field.type == _F.TYPE_BOOL:
            return item == 0
        if field.type == _F.TYPE_STRING:
            least, greatest = f"\x01{item or ''}", f"Grüße 你好 \U0001f44b {item}"
            return self._one(f"{field.name} {item + 1}", least, greatest)
        if field.type == _F.TYPE_BYTES:
            return self._one(b"bytes %d" % item, b"\0" * (item + 1), bytes(range(256)))
        if field.type in (_F.TYPE_FLOAT, _F.TYPE_DOUBLE):
            return self._one(field.number + 0.25 + item, float("-inf"), float("inf"))
        # In between: several bytes as a varint, and another number for each field.
        least_number, greatest_number = _INTEGERS[field.cpp_type]
        return self._one(1000 + field.number + item, least_number or 1, greatest_number)

    def fill_well_known(self, message: Any) -> bool:
        """Fill a message whose content follows rules of its own; False for any other message."""
        name = message.DESCRIPTOR.full_name
        if name == f"{WELL_KNOWN}.Timestamp":  # Years 1 to 9999.
            message.seconds = self._one(1750000000, -62135596800, 253402300799)
            message.nanos = self._one(123456000, 0, 999999999)
        elif name == f"{WELL_KNOWN}.Duration":  # 10,000 years either way.
            message.seconds = self._one(1750000000, -315576000000, 315576000000)
            message.nanos = self._one(123456000, -999999999, 999999999)
        elif name == f"{WELL_KNOWN}.Any":  # Holding a type that every pool with an Any has.
            message.type_url = f"type.googleapis.com/{name}"
        else:
            return False
        return True

    def _one(self, usual: T, least: T, greatest: T) -> T:
        return usual if self.extreme is None else (least, greatest)[self.extreme]


_USUAL: Final = _Values()


def cases(contracts: Contracts, kind: Descriptor) -> Iterator[dict[str, Any]]:
    """The cases of a message type: each with its bytes, and as JSON what they mean."""
    new = message_factory.GetMessageClass(kind)
    yield _case(contracts, "every field", fill(new()))
    for oneof in kind.oneofs:
        for field in oneof.fields[1:]:
            yield _case(contracts, f"{oneof.name}: {field.name}", fill(new(), also=field))
    if kind.fields:
        yield _case(contracts, "least", fill(new(), values=_Values(extreme=0), depth=1))
        yield _case(contracts, "most", fill(new(), values=_Values(extreme=1), depth=1))
    future = fill(new(), values=_Values(future=True))
    yield _case(contracts, "from the future", future, future_fields())


def fill(
    message: Message,
    *,
    also: Any = None,
    values: _Values = _USUAL,
    depth: int = DEPTH,
) -> Message:
    """Set every field of an empty message, and of those in it down to `depth`.

    Of a oneof the first alternative is set, unless `also` is another one of it.
    """
    for field in message.DESCRIPTOR.fields:
        if depth == 0 and field.message_type is not None:
            continue
        oneof = field.containing_oneof
        if oneof is not None:
            chosen = also if also is not None and also.containing_oneof is oneof else None
            if field is not (chosen or oneof.fields[0]):
                continue
        _set(message, field, values, depth)
    return message


def _set(message: Any, field: Any, values: _Values, depth: int) -> None:
    kind = field.message_type
    if kind is None:
        if field.is_repeated:
            getattr(message, field.name).extend(values.of(field, item) for item in range(2))
        else:
            setattr(message, field.name, values.of(field))
        return
    target = getattr(message, field.name)
    if kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        for item in range(2):
            if value.message_type is None:
                target[values.of(key, item)] = values.of(value, item)
            else:
                _fill_inner(target[values.of(key, item)], values, depth)
    elif field.is_repeated:
        for _ in range(2):
            _fill_inner(target.add(), values, depth)
    else:
        target.SetInParent()
        _fill_inner(target, values, depth)


def _fill_inner(message: Any, values: _Values, depth: int) -> None:
    if not values.fill_well_known(message):
        fill(message, values=values, depth=depth - 1)


def future_fields() -> bytes:
    """A field of the future as each wire type: a number, a text, and both fixed widths."""

    def tag(kind: int) -> bytes:
        return _varint(NUMBER_OF_THE_FUTURE << 3 | kind)

    return b"".join(
        (tag(0), _varint(300), tag(1), bytes(range(8)), tag(2), b"\x06future", tag(5), bytes(4))
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _case(contracts: Contracts, name: str, message: Message, more: bytes = b"") -> dict[str, Any]:
    wire = message.SerializeToString(deterministic=True) + more
    meaning = to_json(message, contracts.pool)
    return {"case": name, "wire": base64.b64encode(wire).decode(), "json": meaning}


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _with_nested(nested)


def write(image: bytes, folder: Path) -> int:
    """Write a file with the cases of each message type of an image; return how many files."""
    folder.mkdir(parents=True)
    contracts, files = Contracts(image), 0
    for kind in contracts.messages():
        lines = (
            json.dumps(case, separators=(",", ":"), ensure_ascii=False)
            for case in cases(contracts, kind)
        )
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        (folder / f"{kind.full_name}.json").write_text(text, encoding="utf-8")
        files += 1
    return files


def main() -> int:
    """Write the fixtures of an image."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("folder", type=Path, help="gets a folder messages/")
    arguments = parser.parse_args()
    write(arguments.image.read_bytes(), arguments.folder / "messages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
