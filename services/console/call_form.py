"""A form to call a method: its fields from the contract, key and deadline filled in."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import accord
from accord.contract import Key
from accord_runtime.grpc.ids import uuid7
from services.console import formatting as fmt
from services.console.access import Session
from services.console.contracts import ME, callers_of, methods, named, server_of
from services.console.html import Html, el, facts, url
from services.console.page import Page, Refused, area, choice, field, first, form
from services.console.services import Services
from services.console.watch import said_of

MAX_DEPTH: Final = 3
"""Messages in messages that have inputs of their own; deeper ones are written as JSON."""
MAX_MESSAGES: Final = 50
"""Messages of a stream that are shown."""
STREAM_SECONDS: Final = 3.0
"""For which a stream is read."""

_TEXT: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def call_form(method: str, session: Session) -> Html:
    """The form, or why there is none."""
    described, policy = methods()[method], accord.method_policy(method)
    if policy.allow and ME not in policy.allow:
        who = ", ".join(callers_of(method))
        return el("p", f"Its contract lets {who} call it, not {named(ME)}.")
    if session.role != "operator":
        return el("p", "That needs the role operator.")
    if described.client_streaming:
        return el("p", f"It takes a stream: shopctl curl {method}")
    inputs = list(_inputs(described.input_type, "", 0))
    if policy.key is Key.REQUIRED:
        inputs.append(field("Idempotency key", "key", uuid7(), "repeats have one effect"))
    inputs.append(
        field("Deadline, in seconds", "deadline", f"{policy.timeout or STREAM_SECONDS:g}")
    )
    return form(session, f"{url('call')}/{method}", inputs, el("button", "Call"))


def _inputs(kind: Descriptor, prefix: str, depth: int) -> Iterator[Html]:
    for each in kind.fields:
        name = f"{prefix}{each.name}"
        if each.is_repeated:
            yield area(
                f"{name}, as a JSON {'object' if _is_map(each) else 'list'}", f"f.{name}", "", 2
            )
        elif each.message_type is not None:
            if _is_plain(each.message_type) and depth < MAX_DEPTH:
                inside = list(_inputs(each.message_type, f"{name}.", depth + 1))
                yield el("fieldset", el("legend", each.name), inside)
            else:
                yield field(name, f"f.{name}", hint=f"{each.message_type.full_name}, as JSON")
        elif each.enum_type is not None:
            yield choice(
                name,
                f"f.{name}",
                {"": "not set", **{v.name: v.name for v in each.enum_type.values}},
            )
        elif each.type == FieldDescriptor.TYPE_BOOL:
            yield choice(name, f"f.{name}", {"": "not set", "true": "true", "false": "false"})
        elif each.type in _TEXT:
            yield field(name, f"f.{name}")
        else:
            yield field(name, f"f.{name}", inputmode="decimal")


def _is_map(each: FieldDescriptor) -> bool:
    return each.message_type is not None and each.message_type.GetOptions().map_entry


def _is_plain(kind: Descriptor) -> bool:
    """Whether its JSON is an object of its fields."""
    return not kind.full_name.startswith("google.protobuf.")


def request_of(described: MethodDescriptor, given: Mapping[str, list[str]]) -> Message:
    """The message that a form describes. Raises Refused."""
    wanted: dict[str, Any] = {}
    for name in given:
        value = first(given, name)
        if not name.startswith("f.") or not value:
            continue
        kind: Any = described.input_type
        place = wanted
        *path, last = name.removeprefix("f.").split(".")
        try:
            for part in path:
                kind, place = kind.fields_by_name[part].message_type, place.setdefault(part, {})
            each = kind.fields_by_name[last]
        except (KeyError, AttributeError):
            raise Refused(f"there is no field {name[2:]}") from None
        place[last] = _value(each, value)
    try:
        return ParseDict(wanted, GetMessageClass(described.input_type)())
    except (ParseError, RecursionError) as error:
        raise Refused(f"no {described.input_type.full_name}: {error}") from None


def _value(each: FieldDescriptor, text: str) -> Any:
    if each.is_repeated or each.message_type is not None:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text  # such as a time, which is a string in JSON
    return {"true": True, "false": False}.get(text, text) if each.type == each.TYPE_BOOL else text


async def call(
    services: Services, method: str, given: Mapping[str, list[str]], session: Session
) -> Page:
    """Call it, for this user; the page says what it answers. Raises Refused."""
    if method not in methods() or not server_of(method):
        raise Refused("there is no such method", 404)
    described = methods()[method]
    request = request_of(described, given)
    try:
        deadline = min(60.0, max(0.001, float(first(given, "deadline", "5"))))
    except ValueError:
        raise Refused("the deadline is a number of seconds") from None
    metadata = services.metadata(session, first(given, "key"))
    began, answers, problem = time.monotonic(), [], ""
    try:
        async for answer in _answers(services, method, described, request, deadline, metadata):
            said = MessageToJson(answer, always_print_fields_with_no_presence=True)
            answers.append(said)  # those before an error are shown, too
    except grpc.RpcError as error:
        problem = said_of(error)
    took = fmt.seconds(time.monotonic() - began)
    status = fmt.state(problem, "bad") if problem else fmt.state("OK", "good")
    parts = [
        facts(status=status, took=took, messages=len(answers)),
        *(el("pre", answer, tabindex=0) for answer in answers),
        el("p", el("a", f"Back to {method}", href=f"{url('method')}/{method}")),
    ]
    return Page(f"What {described.name} answers", "", parts)


async def _answers(
    services: Services, method: str, described: MethodDescriptor, request: Message,
    deadline: float, metadata: tuple[tuple[str, str], ...],
) -> Any:  # fmt: skip
    """The messages of the answer: those of a stream that come in time."""
    channel = services.mesh.channel(server_of(method))
    make: Any = channel.unary_stream if described.server_streaming else channel.unary_unary
    started = make(
        f"/{method}",
        request_serializer=GetMessageClass(described.input_type).SerializeToString,
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )(request, metadata=metadata, timeout=deadline)
    if not described.server_streaming:
        yield await started
        return
    number = 0
    try:
        async for answer in started:
            yield answer
            number += 1
            if number >= MAX_MESSAGES:
                break
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or not number:
            raise
    finally:
        started.cancel()
