"""JSON Schema (draft 7) of protobuf's JSON form (protobuf.dev, "ProtoJSON Format")."""

from collections.abc import Callable
from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.export import Json

Comment = Callable[[str], str]
"""What a contract says above the thing of a full name."""

_Field = pb.FieldDescriptor
_INT64: Final = {"type": "string", "pattern": "^-?[0-9]+$", "format": "int64"}
_UINT64: Final = {"type": "string", "pattern": "^[0-9]+$", "format": "uint64"}
_INT32: Final = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Final = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_FLOAT: Final = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_BYTES: Final = {"type": "string", "contentEncoding": "base64"}
_BOOL: Final = {"type": "boolean"}
_STRING: Final = {"type": "string"}

_SCALARS: Final[dict[int, Json]] = {
    _Field.TYPE_BOOL: _BOOL,
    _Field.TYPE_BYTES: _BYTES,
    _Field.TYPE_DOUBLE: _FLOAT,
    _Field.TYPE_FLOAT: _FLOAT,
    _Field.TYPE_STRING: _STRING,
    **dict.fromkeys((_Field.TYPE_INT32, _Field.TYPE_SINT32, _Field.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((_Field.TYPE_UINT32, _Field.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((_Field.TYPE_INT64, _Field.TYPE_SINT64, _Field.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((_Field.TYPE_UINT64, _Field.TYPE_FIXED64), _UINT64),
}

WELL_KNOWN: Final[dict[str, Json]] = {
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
    },
    "google.protobuf.BoolValue": _BOOL,
    "google.protobuf.BytesValue": _BYTES,
    "google.protobuf.DoubleValue": _FLOAT,
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.FieldMask": _STRING,
    "google.protobuf.FloatValue": _FLOAT,
    "google.protobuf.Int32Value": _INT32,
    "google.protobuf.Int64Value": _INT64,
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.StringValue": _STRING,
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.UInt32Value": _UINT32,
    "google.protobuf.UInt64Value": _UINT64,
    "google.protobuf.Value": {},
}
"""Messages whose JSON form is not an object of their fields."""


def map_value(field: pb.FieldDescriptor) -> pb.FieldDescriptor | None:
    """The values of a `map<,>` field; None for any other field."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["value"]


def of_message(message: pb.Descriptor, comment: Comment) -> Json:
    """The schema of a message; messages in it are references to `#/components/schemas/`."""
    schema: Json = {"type": "object", "title": message.full_name}
    if said := comment(message.full_name):
        schema["description"] = said
    schema["properties"] = {
        field.json_name: _described(field, comment)
        for field in sorted(message.fields, key=lambda field: field.number)
    }
    if needed := [field.json_name for field in message.fields if field.is_required]:
        schema["required"] = sorted(needed)
    choices = [_choice(oneof) for oneof in message.oneofs if len(oneof.fields) > 1]
    if choices:
        schema["allOf"] = choices
    return schema


def _choice(oneof: pb.OneofDescriptor) -> Json:
    """One of the fields, or none."""
    each = [{"required": [field.json_name]} for field in oneof.fields]
    return {"title": oneof.name, "oneOf": [*each, {"not": {"anyOf": each}}]}


def _described(field: pb.FieldDescriptor, comment: Comment) -> Json:
    schema = _of_field(field)
    said = comment(field.full_name)
    if "$ref" in schema:
        # Draft 7 ignores what stands beside a reference.
        schema = {"allOf": [schema]}
    if said:
        schema["description"] = said
    if field.GetOptions().deprecated:
        schema["deprecated"] = True
    schema["x-protobuf-field"] = field.number
    return schema


def _of_field(field: pb.FieldDescriptor) -> Json:
    if value := map_value(field):
        return {"type": "object", "additionalProperties": _of_value(value)}
    if field.is_repeated:
        return {"type": "array", "items": _of_value(field)}
    return _of_value(field)


def _of_value(field: pb.FieldDescriptor) -> Json:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        return {"$ref": f"#/components/schemas/{name}"}
    if field.enum_type is not None:
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_SCALARS[field.type])
