"""Fills the request of a compensation from its step's request and response, as `fill` says."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.contract import CompensationPolicy
from accord.contract.names import meant


def wrong(policy: CompensationPolicy, step: MethodDescriptor, undo: MethodDescriptor) -> str:
    """What cannot be filled: a path that leads nowhere, or to another type; "" if all can."""
    sides = {"request": step.input_type, "response": step.output_type}
    for field, source in policy.fill:
        side, _, path = source.partition(".")
        try:
            target, origin = _field(undo.input_type, field), _field(sides[side], path)
        except LookupError as error:
            return f"{field!r} from {source!r}: {error.args[0]}"
        if _type(target) != _type(origin):
            return f"{source!r} is a {_type(origin)}, but {field!r} a {_type(target)}"
    return ""


def filled(
    policy: CompensationPolicy, undo: MethodDescriptor, given: Mapping[str, Message]
) -> Message:
    """The request, of what was `given`: "request" and, if any of it is needed, "response"."""
    request = GetMessageClass(undo.input_type)()
    for field, source in policy.fill:
        side, _, path = source.partition(".")
        holder, name = _holder(request, field)
        value = getattr(*_holder(given[side], path))
        if isinstance(value, str | bytes | int | float):
            setattr(holder, name, value)
        else:
            getattr(holder, name).MergeFrom(value)
    return request


def _holder(message: Any, path: str) -> tuple[Any, str]:
    """The message that has the field to which a path leads, and the field's name."""
    *outside, name = path.split(".")
    for each in outside:
        message = getattr(message, each)
    return message, name


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    name, _, rest = path.partition(".")
    if name not in message.fields_by_name:
        hint = meant(name, message.fields_by_name)
        raise LookupError(f"{message.full_name} has no field {name!r}{hint}")
    field = message.fields_by_name[name]
    if not rest:
        return field
    if field.message_type is None or field.is_repeated:
        raise LookupError(f"{name!r} of {message.full_name} has no fields of its own")
    return _field(field.message_type, rest)


def _type(field: FieldDescriptor) -> str:
    """The type of a field, in the words of a contract."""
    named = field.message_type or field.enum_type
    name = FieldDescriptorProto.Type.Name(field.type)  # type: ignore[arg-type]
    text: str = name.removeprefix("TYPE_").lower() if named is None else named.full_name
    return f"repeated {text}" if field.is_repeated else text
