"""The messages of PluginRPC and of Buf's check protocol, as far as a check plugin needs them.

Wire-compatible subsets of pluginrpc/v1/pluginrpc.proto and buf/plugin/{check,descriptor}/v1, built
in a pool of their own so that they meet no other copy. A field that holds a whole descriptor is
declared as bytes: it is parsed with protobuf's own class, or, as `FileName`, only for its name.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "accord_checks.plugin_messages"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "string": _Field.TYPE_STRING,
}

# Message -> field -> (number, type); "*" marks a repeated field.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Request": {"value": (1, "Any")},
    "Response": {"value": (1, "Any"), "error": (2, "Error")},
    "Error": {"code": (1, "int32"), "message": (2, "string")},
    "Procedure": {"path": (1, "string")},
    "Spec": {"procedures": (1, "*Procedure")},
    "FileName": {"name": (1, "string")},
    "File": {"descriptor": (1, "bytes"), "is_import": (2, "bool")},
    "Location": {"file_name": (1, "string"), "source_path": (2, "*int32")},
    "Annotation": {
        "rule_id": (1, "string"),
        "message": (2, "string"),
        "location": (3, "Location"),
        "against": (4, "Location"),
    },
    "CheckRequest": {"files": (1, "*File"), "against": (2, "*File"), "rule_ids": (4, "*string")},
    "CheckResponse": {"annotations": (1, "*Annotation")},
    "Rule": {
        "id": (1, "string"),
        "category_ids": (2, "*string"),
        "default": (3, "bool"),
        "purpose": (4, "string"),
        "type": (5, "int32"),
    },
    "ListRulesResponse": {"rules": (2, "*Rule")},
    "Category": {"id": (1, "string"), "purpose": (2, "string")},
    "ListCategoriesResponse": {"categories": (2, "*Category")},
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
            if kind.startswith("*"):
                kind, added.label = kind[1:], _Field.LABEL_REPEATED
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES)
    return {message.name: message_factory.GetMessageClass(message) for message in found}


_CLASSES: Final = _classes()

Request: Final = _CLASSES["Request"]
Response: Final = _CLASSES["Response"]
Spec: Final = _CLASSES["Spec"]
FileName: Final = _CLASSES["FileName"]
CheckRequest: Final = _CLASSES["CheckRequest"]
CheckResponse: Final = _CLASSES["CheckResponse"]
ListRulesResponse: Final = _CLASSES["ListRulesResponse"]
ListCategoriesResponse: Final = _CLASSES["ListCategoriesResponse"]
