"""JSON Schema (draft 7, and 2020-12) of protobuf's JSON form (protobuf.dev, "ProtoJSON Format")."""

from collections.abc import Callable, Collection
from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.export import Json
from accord_checks.export.json_bounds import bounded
from accord_checks.protovalidate import Validation

Comment = Callable[[str], str]
"""What a contract says above the thing of a full name."""

_Field = pb.FieldDescriptor
_INT64: Final = {"type": "string", "pattern": "^-?[0-9]{1,19}$", "format": "int64"}
_UINT64: Final = {"type": "string", "pattern": "^[0-9]{1,20}$", "format": "uint64"}
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


def describe(
    message: pb.Descriptor,
    comment: Comment,
    schemas: dict[str, Json],
    validation: Validation | None = None,
) -> None:
    """Add a message's schema by its name, and those of all that it refers to."""
    if message.full_name in schemas or message.full_name in WELL_KNOWN:
        return
    schemas[message.full_name] = {}
    schemas[message.full_name] = of_message(message, comment, validation)
    for field in message.fields:
        used = (map_value(field) or field).message_type
        if used is not None:
            describe(used, comment, schemas, validation)


def of_message(
    message: pb.Descriptor,
    comment: Comment,
    validation: Validation | None = None,
    without: Collection[str] = (),
) -> Json:
    """The schema of a message; messages in it are references to `#/components/schemas/`.

    With the rules of its fields if they are given, and without some of its fields.
    """
    schema: Json = {"type": "object", "title": message.full_name}
    if said := comment(message.full_name):
        schema["description"] = said
    fields = sorted(message.fields, key=lambda field: field.number)
    fields = [field for field in fields if field.name not in without]
    schema["properties"] = {
        field.json_name: of_field(field, comment, validation) for field in fields
    }
    if needed := [field.json_name for field in fields if needs(field, validation)]:
        schema["required"] = sorted(needed)
    choices = [_choice(oneof) for oneof in message.oneofs if len(oneof.fields) > 1]
    if choices:
        schema["allOf"] = choices
    return schema


def needs(field: pb.FieldDescriptor, validation: Validation | None) -> bool:
    """Whether a message without the field is refused."""
    return field.is_required or (validation is not None and validation.refuses_empty(field))


def _choice(oneof: pb.OneofDescriptor) -> Json:
    """One of the fields, or none."""
    each = [{"required": [field.json_name]} for field in oneof.fields]
    return {"title": oneof.name, "oneOf": [*each, {"not": {"anyOf": each}}]}


def of_field(
    field: pb.FieldDescriptor, comment: Comment, validation: Validation | None = None
) -> Json:
    """The schema of a field, with what is said of it."""
    schema = _of_field(field)
    if validation is not None:
        schema = bounded(schema, field, validation.of_field(field))
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
