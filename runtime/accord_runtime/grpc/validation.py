"""Enforces the rules that stand in the contracts, for all services at once.

The rules are protovalidate's (`buf.validate`); its library evaluates them.
"""

from collections.abc import Iterator, Sequence
from functools import cache, reduce

import protovalidate
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from accord import FieldViolation

MAX_BYTES = 64 * 1024
"""Bytes of a request. The rules of the contracts keep every request well below; what they do not
bound are fields that this version does not know, which would go into databases and events."""

MAX_VIOLATIONS = 20
"""Violations that an answer names; more help nobody and would not fit the trailers."""


def violations(message: Message) -> Sequence[FieldViolation]:
    """What is wrong with a request; empty when all its rules hold."""
    # Looking at every item of an endless list would take minutes, in which nobody else is served.
    overlong = [
        FieldViolation(".".join(path), f"must contain no more than {most} item(s)")
        for path, most in _limits(message.DESCRIPTOR)
        if len(reduce(getattr, path, message)) > most  # type: ignore[arg-type]
    ]
    if overlong:
        return overlong
    try:
        found = protovalidate.collect_violations(message)
    except protovalidate.EvaluationError as error:
        # A rule that gave up, on input too large to look at: nobody may pass unseen.
        return [FieldViolation("", f"the request is too large to be checked: {error}"[:200])]
    if not found and message.ByteSize() > MAX_BYTES:
        return [FieldViolation("", f"the request is larger than {MAX_BYTES} bytes")]
    return [
        FieldViolation(_path(violation.proto), violation.proto.message)
        for violation in found[:MAX_VIOLATIONS]
    ]


def warm(contracts: Sequence[str]) -> None:
    """Compile the rules of the requests of gRPC services, so that the first call need not pay."""
    for contract in contracts:
        for method in descriptor_pool.Default().FindServiceByName(contract).methods:
            violations(message_factory.GetMessageClass(method.input_type)())


@cache
def _limits(
    descriptor: Descriptor, within: frozenset[str] = frozenset()
) -> Sequence[tuple[tuple[str, ...], int]]:
    """Paths of the lists of a message, and how many items the contract allows each.

    What lies in the items of a list is bounded by that list.
    """
    found: list[tuple[tuple[str, ...], int]] = []
    for field in descriptor.fields:
        if field.is_repeated:
            most = _max_items(field)
            if most is not None:
                found.append(((field.name,), most))
        elif field.message_type is not None and field.message_type.full_name not in within:
            nested = _limits(field.message_type, within | {descriptor.full_name})
            found += [((field.name, *path), most) for path, most in nested]
    return found


def _max_items(field: FieldDescriptor) -> int | None:
    """`(buf.validate.field).repeated.max_items`, read without the generated code of the rules."""
    raw: object = field.GetOptions().SerializeToString()
    for number in (1159, 18, 2):
        if not isinstance(raw, bytes):
            return None
        fields = UnknownFieldSet(Empty.FromString(raw))
        found = (fields[index] for index in range(len(fields)))
        raw = next((item.data for item in found if item.field_number == number), None)
    return raw if isinstance(raw, int) else None


def _path(violation: protovalidate.ViolationPb) -> str:
    """The path of a field as google.rpc.BadRequest writes it: `items[3].quantity`."""
    return "".join(_steps(violation)).removeprefix(".")


def _steps(violation: protovalidate.ViolationPb) -> Iterator[str]:
    if violation.field is None:
        return  # A rule over the whole message.
    for element in violation.field.elements:
        yield f".{element.field_name}"
        if element.subscript is not None:
            yield f"[{element.subscript.value}]"
