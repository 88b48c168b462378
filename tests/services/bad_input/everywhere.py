"""What can be wrong with any request: made from the contracts, for every RPC and every field."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.services.bad_input.contract import LENGTH_DELIMITED, RPCS, Place, Rpc, varint
from tests.services.bad_input.wrong import GOOD, WRONG

UNDECODABLE: Final = {
    "no tag": b"\xff\xff\xff\xff",
    "field number 0": b"\x00\x00",
    "cut off": b"\x0a\x7f",
    "longer than memory": b"\x0a\xff\xff\xff\xff\x07",
    "endless number": b"\x08" + b"\xff" * 11,
    "end of no group": b"\x0c",
    "groups without end": b"\x0b" * 1000,
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
"""Bytes that are no protobuf message."""

UNKNOWN: Final = varint(1000 << 3 | LENGTH_DELIMITED) + varint(2 * 1024 * 1024) + bytes(2**21)
"""A field that no contract has, with more in it than is worth keeping."""

MAY_BE_EMPTY: Final = frozenset(
    {
        "accord.ops.v1.AuditService/ListAudit",
        "accord.ops.v1.HealthService/GetHealth",
        "accord.ops.v1.MeshService/GetState",
        "accord.ops.v1.MeshService/ListMethods",
        "accord.ops.v1.MeshService/WatchState",
        "accord.ops.v1.OperationService/ListOperations",
        "accord.ops.v1.SagaService/GetSagaCounts",
        "accord.ops.v1.SagaService/ListSagas",
        "accord.ops.v1.TraceService/ListFlows",
        "accord.ops.v1.WorkService/GetQueues",
        "accord.ops.v1.WorkService/ListWork",
        "shop.accounting.v1.AccountingService/GetTrialBalance",
        "shop.accounting.v1.AccountingService/ListTransactions",
        "shop.accounting.v1.AccountingService/Reconcile",
        "shop.analytics.v1.AnalyticsService/ListViews",
        "shop.customers.v1.CustomerService/ListCustomers",
        "shop.inventory.v1.InventoryService/ListStock",
        "shop.inventory.v1.InventoryService/ReadEvents",
        "shop.notifications.v1.NotificationService/ListNotifications",
        "shop.notifications.v1.WebhookService/ListWebhooks",
        "shop.orders.v1.OrderService/ListOrders",
        "shop.orders.v1.OrderService/ReadEvents",
        "shop.payments.v1.PaymentService/ReadEvents",
        "shop.sandbox.v1.SandboxService/ReadLedger",
        "shop.shipping.v1.ShippingService/ReadEvents",
    }
)
"""RPCs that are content with a request without any field."""


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request that every service must refuse by its contract alone."""

    rpc: Rpc
    case: str
    request: Message | bytes
    field: str
    """The field that is named."""
    reason: str = "INVALID_ARGUMENT"

    def __str__(self) -> str:
        return f"{self.rpc.descriptor.name}-{self.field or 'request'}-{self.case}"


def bad_requests() -> Iterator[BadRequest]:
    """All of them."""
    for name, rpc in RPCS.items():
        for case, raw in UNDECODABLE.items():
            # Protobuf takes a field number 0 for a message that has no fields.
            if rpc.descriptor.input_type.fields or case != "field number 0":
                yield BadRequest(rpc, case, raw, "", "UNDECODABLE")
        for field, value in WRONG[name]:
            yield BadRequest(
                rpc, f"{value!r:.40}", with_value(rpc.place(field), name, value), field
            )
        good = GOOD[name].SerializeToString()
        yield BadRequest(rpc, "unknown field", good + UNKNOWN, "")
        for place in rpc.places:
            yield from _of_field(rpc, place)


def with_value(place: Place, rpc: str, value: object) -> Message:
    """A request that is good but for one field."""
    request = deepcopy(GOOD[rpc])
    place.put(request, value)
    return request


def _of_field(rpc: Rpc, place: Place) -> Iterator[BadRequest]:
    field = place.field
    good = GOOD[rpc.name].SerializeToString()
    first = f"{place.name}[0]" if field.is_repeated else place.name
    if field.type == FieldDescriptor.TYPE_STRING:
        for case, raw in (("lone byte", b"\xff"), ("overlong", b"\xc0\xaf"), ("cut", b"\xe2\x82")):
            yield BadRequest(rpc, f"UTF-8 {case}", good + place.encode(raw), "", "UNDECODABLE")
        surrogate = "\ud800".encode("utf-8", "surrogatepass")
        yield BadRequest(rpc, "UTF-8 surrogate", place.encode(surrogate), "", "UNDECODABLE")
        for case, text in (("giant", "x" * 1024 * 1024), ("NUL", "a\0b")):
            value = [text] if field.is_repeated else text
            yield BadRequest(rpc, case, with_value(place, rpc.name, value), first)
    if field.type == FieldDescriptor.TYPE_ENUM:
        for number in (-(2**31), -1, 99, 2**31 - 1):
            wrong = [number] if field.is_repeated else number
            yield BadRequest(rpc, f"unknown {number}", with_value(place, rpc.name, wrong), first)
    if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
        lowest = -(2**31) if field.type == FieldDescriptor.TYPE_INT32 else -(2**63)
        for number in (-1, lowest):
            yield BadRequest(
                rpc, f"negative {number}", with_value(place, rpc.name, number), place.name
            )
    if field.message_type is not None:
        yield BadRequest(rpc, "no message", good + place.encode(b"\xff"), "", "UNDECODABLE")
        if not any(parent.is_repeated for parent in place.path):
            yield BadRequest(
                rpc, f"unknown field in {place.name}", good + place.encode(UNKNOWN), ""
            )
    if field.is_repeated:
        # Empty items cost the caller two bytes each; looking at them costs the server minutes.
        for number in (10_000, 300_000):
            if field.message_type is not None or field.type == FieldDescriptor.TYPE_STRING:
                items = good + place.encode(b"") * number
            else:
                items = good + place.encode(bytes(number))  # packed
            yield BadRequest(rpc, f"{number} items", items, place.name)


def oversized() -> bytes:
    """A well-formed request of any type that is larger than a server takes."""
    return UNKNOWN * 2
