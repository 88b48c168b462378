"""Enforces the rules that stand in the contracts, for all services at once.

The rules are protovalidate's (`buf.validate`); its library evaluates them.
"""

from collections.abc import Iterator, Sequence

import protovalidate
from google.protobuf.message import Message

from accord.hooks import FieldViolation

MAX_VIOLATIONS = 20
"""Violations that an answer names; more help nobody and would not fit the trailers."""


def violations(message: Message) -> Sequence[FieldViolation]:
    """What is wrong with a request; empty when all its rules hold."""
    try:
        found = protovalidate.collect_violations(message)
    except protovalidate.EvaluationError as error:
        # A rule that gave up, on input too large to look at: nobody may pass unseen.
        return [FieldViolation("", f"the request is too large to be checked: {error}"[:200])]
    return [
        FieldViolation(_path(violation.proto), violation.proto.message)
        for violation in found[:MAX_VIOLATIONS]
    ]


def warm(messages: Sequence[type[Message]]) -> None:
    """Compile the rules of request messages, so that the first call does not pay for it."""
    for message in messages:
        violations(message())


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
