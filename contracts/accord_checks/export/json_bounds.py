"""Rules of protovalidate as keywords of JSON Schema, as far as it has them.

What an expression of CEL says is left out, as are bounds of what JSON writes as a string: int64,
bytes, times.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor as pb

from accord_checks.export import Json

_KEYWORDS: Final = {
    "min_len": "minLength",
    "max_len": "maxLength",
    "gte": "minimum",
    "lte": "maximum",
    "const": "const",
    "in": "enum",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique": "uniqueItems",
    "min_pairs": "minProperties",
    "max_pairs": "maxProperties",
}
_FORMATS: Final = {
    "uuid": "uuid",
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
}
_CLASSES: Final = {"[:cntrl:]": r"\x00-\x1f\x7f", "[:digit:]": "0-9", "[:alnum:]": "0-9A-Za-z"}
_OF_RE2: Final = re.compile(r"\[:|\\[zAQCpP]|\(\?")
"""What RE2 has and regular expressions of JavaScript write otherwise, or do not have."""
_NUMBERS: Final = frozenset({"int32", "sint32", "sfixed32", "uint32", "fixed32", "float", "double"})


def bounded(schema: Json, field: pb.FieldDescriptor, rules: Mapping[str, Any]) -> Json:
    """The schema of a field with what its rules say, `Validation.of_field`."""
    if "ignore" in rules:
        rules = {name: rule for name, rule in rules.items() if name != "ignore"}
        if field.type != pb.FieldDescriptor.TYPE_STRING:
            return schema
        return {"anyOf": [{"const": ""}, bounded(schema, field, rules)]}
    schema = dict(schema)
    for name, rule in rules.items():
        kind, _, what = name.partition(".")
        if kind == "int64" and what == "gte" and rule in (0, 1):
            digits = len(str(rules.get("int64.lte", 2**63 - 1)))
            schema["pattern"] = f"^[{rule}-9][0-9]{{0,{digits - 1}}}$"
        elif kind == "string" and what == "len":
            schema["minLength"] = schema["maxLength"] = rule
        elif kind == "string" and what in _FORMATS:
            schema["format"] = _FORMATS[what]
        elif what == "pattern":
            for name, inside in _CLASSES.items():
                rule = rule.replace(name, inside)
            if not _OF_RE2.search(rule):
                schema["pattern"] = rule
        elif kind in ("string", "repeated", "map", *_NUMBERS) and what in _KEYWORDS:
            schema[_KEYWORDS[what]] = sorted(rule) if what == "in" else rule
    for part, where in (("repeated.items.", "items"), ("map.values.", "additionalProperties")):
        inner = {
            name.removeprefix(part): it for name, it in rules.items() if name[: len(part)] == part
        }
        if inner:
            schema[where] = bounded(schema[where], field, inner)
    return schema
