"""The AsyncAPI document, judged by AsyncAPI's own parser, and real events by the schemas in it."""

import json
from typing import Any

from google.protobuf import (
    any_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from accord_checks.export import asyncapi
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support

SPECIAL = {
    "google.protobuf.Any": any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Empty"),
    "google.protobuf.Value": struct_pb2.Value(number_value=1.5),
    "google.protobuf.ListValue": struct_pb2.ListValue(values=[struct_pb2.Value(bool_value=True)]),
    "google.protobuf.Timestamp": timestamp_pb2.Timestamp(seconds=1, nanos=250_000_000),
}


def _filled(message: Message, oneof: int, depth: int = 0) -> Message:
    """Every field set; of a oneof the field with that index."""
    for field in message.DESCRIPTOR.fields:
        chosen = field.containing_oneof
        if chosen is not None and chosen.fields[oneof % len(chosen.fields)] is not field:
            continue
        _fill(message, field, oneof, depth)
    return message


def _fill(message: Message, field: Any, oneof: int, depth: int) -> None:
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        value = nested.fields_by_name["value"]
        entries = getattr(message, field.name)
        if value.message_type is None:
            entries[_scalar(nested.fields_by_name["key"])] = _scalar(value)
        elif depth < 2:  # what holds itself must end
            _filled(entries[_scalar(nested.fields_by_name["key"])], oneof, depth + 1)
    elif nested is not None:
        inner = getattr(message, field.name)
        special = SPECIAL.get(nested.full_name)
        if depth == 2 and special is None:
            return
        made = inner.add() if field.is_repeated else inner
        if special is not None:
            made.MergeFromString(special.SerializeToString())
        else:
            _filled(made, oneof, depth + 1)
        if not field.is_repeated:
            made.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(_scalar(field))
    else:
        setattr(message, field.name, _scalar(field))


def _scalar(field: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return b"\xff\x00" if field.type == FieldDescriptor.TYPE_BYTES else "text"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return float("inf")
    return 7


def _payloads(contracts: ResolvedContracts) -> list[dict[str, Any]]:
    """Every event in protobuf's JSON form: empty, and with everything in it."""
    found = []
    for event in contracts.events:
        made = message_factory.GetMessageClass(event.descriptor)
        for oneof in range(3):
            payload = json_format.MessageToDict(
                _filled(made(), oneof), descriptor_pool=event.descriptor.file.pool
            )
            found.append({"message": event.name, "payload": payload})
        found.append({"message": event.name, "payload": {}})
    return found


async def test_parser_and_events_agree() -> None:
    """The parser finds nothing wrong, and every event that protobuf writes fits its schema."""
    every = support.all_contracts()
    given = [
        {
            "document": asyncapi.export(contracts, title="Events of a test", release="1.2.3"),
            "events": _payloads(contracts),
        }
        for contracts in every.values()
    ]
    judged = await support.node("asyncapi.cjs", given)
    well: dict[str, list[Any]] = {"problems": [], "invalid": []}
    assert dict(zip(every, judged, strict=True)) == dict.fromkeys(every, well)


async def test_wrong_documents_and_events_are_refused() -> None:
    """The judges can say no: to a channel that leads nowhere, and to events of a wrong shape."""
    contracts = support.all_contracts()["foreign"]
    document = asyncapi.export(contracts)
    thing = {"text": "a", "part": {}}
    wrong = [{"thingId": 7}, {"thing": {"big": -1}}, {"thing": thing}, {"thing": {"real": "x"}}]
    events = [{"message": "acme.calls.v1.Happened", "payload": payload} for payload in wrong]
    broken = document.replace('"#/channels/acme.calls.v1.Happened"', '"#/channels/none"')
    given = [{"document": document, "events": events}, {"document": broken, "events": []}]
    judged, of_broken = await support.node("asyncapi.cjs", given)
    assert len(judged["invalid"]) == len(wrong)
    assert of_broken["problems"]


def test_document_says_subject_version_key_and_publisher() -> None:
    """An event's channel, operation and message say what its options say."""
    document = json.loads(asyncapi.export(ResolvedContracts(support.shop_image())))
    name = "shop.orders.v1.OrderPlaced"
    assert document["channels"][name]["address"] == "orders.order.placed.{order_id}"
    parameter = document["channels"][name]["parameters"]["order_id"]
    assert parameter["location"] == "$message.payload#/orderId"
    message = document["components"]["messages"][name]
    assert message["x-version"] == 1
    assert message["x-key"] == "order_id"
    assert message["x-publishers"] == ["shop.orders.v1.OrderService"]
    assert message["description"].startswith("An order was recorded")
    assert document["operations"][f"publish-{name}"]["action"] == "send"
    total = document["components"]["schemas"][name]["properties"]["total"]
    assert total["allOf"] == [{"$ref": "#/components/schemas/shop.common.v1.Money"}]
    assert total["x-protobuf-field"] == 4
