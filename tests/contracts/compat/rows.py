"""The table: how each RPC is driven over the wire, its answer and a refusal with its reason.

A row works with requests and answers as JSON, so that it can be run by the clients of any version.
Calls with a key are repeated by the client of another version (`World`).

An RPC that no release has yet is driven by today's client against today's servers. Of released
servers nothing but UNIMPLEMENTED is promised for it, and released clients cannot call it:
`test_wire.py` goes by the released contracts.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

from accord_runtime.grpc.ids import uuid7
from tests.contracts.compat.client import Json
from tests.contracts.compat.world import (
    ADDRESS,
    NOWHERE,
    PRICE,
    UNKNOWN,
    World,
)

Row = Callable[[World], None]

ROWS: Final[dict[str, Row]] = {}
"""RPC -> how it is driven."""

ACCOUNTING: Final = "shop.accounting.v1.AccountingService/"
ANALYTICS: Final = "shop.analytics.v1.AnalyticsService/"
CUSTOMERS: Final = "shop.customers.v1.CustomerService/"
INVENTORY: Final = "shop.inventory.v1.InventoryService/"
NOTIFICATIONS: Final = "shop.notifications.v1.NotificationService/"
WEBHOOKS: Final = "shop.notifications.v1.WebhookService/"
ORDERS: Final = "shop.orders.v1.OrderService/"
PAYMENTS: Final = "shop.payments.v1.PaymentService/"
SHIPPING: Final = "shop.shipping.v1.ShippingService/"
CARDS: Final = "shop.sandbox.v1.CardProcessorService/"
CARRIER: Final = "shop.sandbox.v1.CarrierService/"
SANDBOX: Final = "shop.sandbox.v1.SandboxService/"
AUDIT: Final = "accord.ops.v1.AuditService/"
HEALTH: Final = "accord.ops.v1.HealthService/"
MESH: Final = "accord.ops.v1.MeshService/"
SAGAS: Final = "accord.ops.v1.SagaService/"
OPERATIONS: Final = "accord.ops.v1.OperationService/"
TRACES: Final = "accord.ops.v1.TraceService/"
WORK: Final = "accord.ops.v1.WorkService/"

_skus = itertools.count(1)


def row(rpc: str) -> Callable[[Row], Row]:
    """Say which RPC a row is for."""

    def add(function: Row) -> Row:
        ROWS[rpc] = function
        return function

    return add


# Customers


@row(f"{CUSTOMERS}CreateCustomer")
def _(world: World) -> None:
    ada = {"name": "Ada", "email": f"{uuid7()}@example.com", "address": ADDRESS}
    created = world.call(f"{CUSTOMERS}CreateCustomer", ada, key=uuid7())["customer"]
    assert created["email"] == ada["email"]
    assert created["address"]["city"] == "Town"
    world.refused("ALREADY_EXISTS", "EMAIL_TAKEN", f"{CUSTOMERS}CreateCustomer", ada, key=uuid7())


@row(f"{CUSTOMERS}GetCustomer")
def _(world: World) -> None:
    found = world.call(f"{CUSTOMERS}GetCustomer", {"customer_id": world.customer})["customer"]
    assert found["name"] == "Ada"
    world.refused("NOT_FOUND", "NOT_FOUND", f"{CUSTOMERS}GetCustomer", {"customer_id": UNKNOWN})
    bad = world.refused(
        "INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{CUSTOMERS}GetCustomer", {"customer_id": "?"}
    )
    assert bad.fields == ["customer_id"]


@row(f"{CUSTOMERS}BatchGetCustomers")
def _(world: World) -> None:
    rpc = f"{CUSTOMERS}BatchGetCustomers"
    found = world.call(rpc, {"customer_ids": [world.customer, UNKNOWN]})
    assert [each["name"] for each in found["customers"]] == ["Ada"]
    assert found["missing_customer_ids"] == [UNKNOWN]
    bad = world.refused("INVALID_ARGUMENT", "INVALID_ARGUMENT", rpc, {"customer_ids": []})
    assert bad.fields == ["customer_ids"]


@row(f"{CUSTOMERS}ListCustomers")
def _(world: World) -> None:
    customer = world.customer
    listed = world.all(f"{CUSTOMERS}ListCustomers", {})
    (number,) = (it["number"] for it in listed if it["customer"]["customer_id"] == customer)
    after = world.all(f"{CUSTOMERS}ListCustomers", {"after_number": number})
    assert len(after) == len(listed) - int(number)
    before = {"after_number": "-1"}
    world.refused("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{CUSTOMERS}ListCustomers", before)


# Inventory


def _stocked(world: World, on_hand: int = 10) -> str:
    """A product of the row's own."""
    sku = f"own-{next(_skus)}"
    request = {"sku": sku, "name": sku, "price": PRICE, "on_hand": str(on_hand)}
    product = world.call(f"{INVENTORY}UpsertProduct", request)["product"]
    assert (product["sku"], product["available"]) == (sku, str(on_hand))
    return sku


def _reservation(sku: str, quantity: int = 1) -> Json:
    line = {"sku": sku, "quantity": quantity, "unit_price": PRICE}
    return {"order_id": uuid7(), "lines": [line]}


def _reserved(world: World) -> str:
    """An order that has stock."""
    request = _reservation(_stocked(world))
    answer = world.call(f"{INVENTORY}ReserveStock", request, key=uuid7())["reservation"]
    assert answer == {"order_id": request["order_id"], "state": "RESERVATION_STATE_RESERVED"}
    return str(answer["order_id"])


@row(f"{INVENTORY}UpsertProduct")
def _(world: World) -> None:
    dollars = {"sku": _stocked(world), "name": "Tea", "price": {**PRICE, "currency_code": "USD"}}
    refusal = ("FAILED_PRECONDITION", "CURRENCY_CHANGED")
    world.refused(*refusal, f"{INVENTORY}UpsertProduct", {**dollars, "on_hand": "1"})


@row(f"{INVENTORY}ReserveStock")
def _(world: World) -> None:
    _reserved(world)
    too_much = _reservation(_stocked(world, on_hand=1), quantity=2)
    refusal = ("FAILED_PRECONDITION", "OUT_OF_STOCK")
    world.refused(*refusal, f"{INVENTORY}ReserveStock", too_much, key=uuid7())


@row(f"{INVENTORY}ReleaseStock")
def _(world: World) -> None:
    order = {"order_id": _reserved(world)}
    released = world.call(f"{INVENTORY}ReleaseStock", order)["reservation"]
    assert released["state"] == "RESERVATION_STATE_RELEASED"
    committed = {"order_id": _reserved(world)}
    world.call(f"{INVENTORY}CommitStock", committed)
    refusal = ("FAILED_PRECONDITION", "RESERVATION_COMMITTED")
    world.refused(*refusal, f"{INVENTORY}ReleaseStock", committed)


@row(f"{INVENTORY}CommitStock")
def _(world: World) -> None:
    order = {"order_id": _reserved(world)}
    committed = world.call(f"{INVENTORY}CommitStock", order)["reservation"]
    assert committed["state"] == "RESERVATION_STATE_COMMITTED"
    refusal = ("FAILED_PRECONDITION", "NOT_RESERVED")
    world.refused(*refusal, f"{INVENTORY}CommitStock", {"order_id": UNKNOWN})


@row(f"{INVENTORY}GetStock")
def _(world: World) -> None:
    sku = _stocked(world)
    assert world.call(f"{INVENTORY}GetStock", {"sku": sku})["product"]["on_hand"] == "10"
    world.refused("NOT_FOUND", "NOT_FOUND", f"{INVENTORY}GetStock", {"sku": "unknown"})


@row(f"{INVENTORY}BatchGetStock")
def _(world: World) -> None:
    sku = _stocked(world)
    found = world.call(f"{INVENTORY}BatchGetStock", {"skus": [sku, "unknown"]})
    assert [each["sku"] for each in found["products"]] == [sku]
    assert found["missing_skus"] == ["unknown"]
    wrong = {"skus": [sku, sku]}
    world.refused("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{INVENTORY}BatchGetStock", wrong)


@row(f"{INVENTORY}ListStock")
def _(world: World) -> None:
    sku = _stocked(world)
    listed = [it["product"]["sku"] for it in world.all(f"{INVENTORY}ListStock", {})]
    assert sku in listed
    after = world.all(f"{INVENTORY}ListStock", {"after_sku": sku})
    assert [it["product"]["sku"] for it in after] == listed[listed.index(sku) + 1 :]
    wrong = {"after_sku": "no such thing"}
    world.refused("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{INVENTORY}ListStock", wrong)


# Payments


def _charged(world: World) -> str:
    """An order that is paid."""
    charge = {"order_id": uuid7(), "amount": PRICE, "card_token": "tok_visa"}
    payment = world.call(f"{PAYMENTS}Charge", charge, key=uuid7())["payment"]
    assert payment["state"] == "PAYMENT_STATE_CAPTURED"
    assert payment["amount"] == PRICE
    return str(charge["order_id"])


@row(f"{PAYMENTS}Charge")
def _(world: World) -> None:
    _charged(world)
    declined = {"order_id": uuid7(), "amount": PRICE, "card_token": "tok_declined"}
    refusal = ("FAILED_PRECONDITION", "CARD_DECLINED")
    world.refused(*refusal, f"{PAYMENTS}Charge", declined, key=uuid7())


@row(f"{PAYMENTS}Refund")
def _(world: World) -> None:
    order = {"order_id": _charged(world)}
    refunded = world.call(f"{PAYMENTS}Refund", order)["payment"]
    assert refunded["state"] == "PAYMENT_STATE_REFUNDED"
    again = {**order, "amount": PRICE, "card_token": "tok_visa"}
    refusal = ("FAILED_PRECONDITION", "PAYMENT_REFUNDED")
    world.refused(*refusal, f"{PAYMENTS}Charge", again, key=uuid7())


@row(f"{PAYMENTS}GetPayment")
def _(world: World) -> None:
    order_id = _charged(world)
    found = world.call(f"{PAYMENTS}GetPayment", {"order_id": order_id})["payment"]
    assert found["order_id"] == order_id
    world.refused("NOT_FOUND", "NOT_FOUND", f"{PAYMENTS}GetPayment", {"order_id": UNKNOWN})


# Shipping


def _parcel(**changes: object) -> Json:
    lines = [{"sku": "tea", "quantity": 2}]
    return {"order_id": uuid7(), "ship_to": ADDRESS, "lines": lines, **changes}


def _shipped(world: World) -> str:
    """An order that is with the carrier."""
    shipment = world.call(f"{SHIPPING}CreateShipment", _parcel(), key=uuid7())["shipment"]
    assert shipment["state"] == "SHIPMENT_STATE_BOOKED"
    assert shipment["tracking_number"]
    return str(shipment["order_id"])


@row(f"{SHIPPING}CreateShipment")
def _(world: World) -> None:
    _shipped(world)
    refusal = ("FAILED_PRECONDITION", "NO_CARRIER")
    nowhere = _parcel(ship_to=NOWHERE)
    world.refused(*refusal, f"{SHIPPING}CreateShipment", nowhere, key=uuid7())


@row(f"{SHIPPING}CancelShipment")
def _(world: World) -> None:
    order = {"order_id": _shipped(world)}
    cancelled = world.call(f"{SHIPPING}CancelShipment", order)["shipment"]
    assert cancelled["state"] == "SHIPMENT_STATE_CANCELLED"
    refusal = ("FAILED_PRECONDITION", "SHIPMENT_CANCELLED")
    world.refused(*refusal, f"{SHIPPING}CreateShipment", _parcel(**order), key=uuid7())


@row(f"{SHIPPING}GetShipment")
def _(world: World) -> None:
    found = world.call(f"{SHIPPING}GetShipment", {"order_id": _shipped(world)})["shipment"]
    assert found["units"] == "2"
    world.refused("NOT_FOUND", "NOT_FOUND", f"{SHIPPING}GetShipment", {"order_id": UNKNOWN})


@row(f"{SHIPPING}BatchGetShipments")
def _(world: World) -> None:
    order_id = _shipped(world)
    found = world.call(f"{SHIPPING}BatchGetShipments", {"order_ids": [UNKNOWN, order_id]})
    assert [each["order_id"] for each in found["shipments"]] == [order_id]
    assert found["missing_order_ids"] == [UNKNOWN]
    none: Json = {"order_ids": []}
    world.refused("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{SHIPPING}BatchGetShipments", none)


# The outside world


def _capture(key: str, card: str = "tok_visa") -> Json:
    return {"key": key, "reference": "r", "amount": PRICE, "card_token": card}


def _booking(key: str) -> Json:
    return {"key": key, "reference": "r", "ship_to": ADDRESS, "units": "2"}


@row(f"{CARDS}Capture")
def _(world: World) -> None:
    assert world.call(f"{CARDS}Capture", _capture(uuid7()))["capture_id"]
    no_funds = _capture(uuid7(), "tok_no_funds")
    world.refused("FAILED_PRECONDITION", "CARD_DECLINED", f"{CARDS}Capture", no_funds)


@row(f"{CARDS}Reverse")
def _(world: World) -> None:
    key = uuid7()
    world.call(f"{CARDS}Capture", _capture(key))
    assert world.call(f"{CARDS}Reverse", {"key": key, "reference": "r"})["amount"] == PRICE
    world.refused("FAILED_PRECONDITION", "KEY_REVERSED", f"{CARDS}Capture", _capture(key))


@row(f"{CARRIER}BookParcel")
def _(world: World) -> None:
    assert world.call(f"{CARRIER}BookParcel", _booking(uuid7()))["tracking_number"]
    nowhere = {**_booking(uuid7()), "ship_to": NOWHERE}
    refusal = ("FAILED_PRECONDITION", "DESTINATION_NOT_SERVED")
    world.refused(*refusal, f"{CARRIER}BookParcel", nowhere)


@row(f"{CARRIER}CancelParcel")
def _(world: World) -> None:
    key = uuid7()
    world.call(f"{CARRIER}BookParcel", _booking(key))
    assert world.call(f"{CARRIER}CancelParcel", {"key": key, "reference": "r"})["units"] == "2"
    world.refused("FAILED_PRECONDITION", "KEY_CANCELLED", f"{CARRIER}BookParcel", _booking(key))


@row(f"{SANDBOX}SetBehavior")
def _(world: World) -> None:
    decline = {"party": "PARTY_CARD_PROCESSOR", "behavior": "BEHAVIOR_DECLINE", "calls": 1}
    world.call(f"{SANDBOX}SetBehavior", decline)
    refusal = ("FAILED_PRECONDITION", "CARD_DECLINED")
    world.refused(*refusal, f"{CARDS}Capture", _capture(uuid7()))
    future = {**decline, "behavior": 99}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{SANDBOX}SetBehavior")
    assert world.refused(*bad, future).fields == ["behavior"]


@row(f"{SANDBOX}ReadLedger")
def _(world: World) -> None:
    reference = uuid7()
    world.call(f"{CARDS}Capture", {**_capture(uuid7()), "reference": reference})
    (entry,) = world.all(f"{SANDBOX}ReadLedger", {"reference": reference})
    assert entry["kind"] == "ENTRY_KIND_CAPTURED"
    assert entry["amount"] == PRICE
    assert world.all(f"{SANDBOX}ReadLedger", {"after_number": entry["number"]}) == []


# Notifications


@row(f"{NOTIFICATIONS}ListNotifications")
def _(world: World) -> None:
    assert "on its way" in world.until_mailed(world.confirmed)["subject"]
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{NOTIFICATIONS}ListNotifications")
    assert world.refused(*bad, {"page_token": "?"}).fields == ["page_token"]


@row(f"{NOTIFICATIONS}RecordSent")
def _(world: World) -> None:
    mail = world.until_mailed(world.confirmed)
    sent = {"notification_id": mail["notification_id"], "sent_at": "2026-01-01T00:00:00Z"}
    answer = world.call(f"{NOTIFICATIONS}RecordSent", sent)["notification"]
    assert answer["sent_at"] == mail["sent_at"]
    unknown = {**sent, "notification_id": UNKNOWN}
    world.refused("NOT_FOUND", "NOT_FOUND", f"{NOTIFICATIONS}RecordSent", unknown)


@row(f"{NOTIFICATIONS}GetNotification")
def _(world: World) -> None:
    wanted = {"notification_id": world.until_mailed(world.confirmed)["notification_id"]}
    found = world.call(f"{NOTIFICATIONS}GetNotification", wanted)["notification"]
    assert found["order_id"] == world.confirmed
    unknown = {"notification_id": UNKNOWN}
    refusal = ("NOT_FOUND", "NOT_FOUND")
    world.refused(*refusal, f"{NOTIFICATIONS}GetNotification", unknown)


# Accounting


@row(f"{ACCOUNTING}ListTransactions")
def _(world: World) -> None:
    wanted = {"order_id": world.confirmed}
    found = world.eventually(f"{ACCOUNTING}ListTransactions", wanted, "transactions")
    for each in found["transactions"]:
        sums = [sum(int(it[side]) for it in each["entries"]) for side in ("debit", "credit")]
        assert sums == [499, 499]
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ACCOUNTING}ListTransactions")
    assert world.refused(*bad, {"page_token": "?"}).fields == ["page_token"]


@row(f"{ACCOUNTING}GetTrialBalance")
def _(world: World) -> None:
    assert world.confirmed
    assert world.eventually(f"{ACCOUNTING}GetTrialBalance", {}, "balances")["balanced"]
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ACCOUNTING}GetTrialBalance")
    assert world.refused(*bad, {"as_of": "1999-12-31T00:00:00Z"}).fields == ["as_of"]


@row(f"{ACCOUNTING}GetAccount")
def _(world: World) -> None:
    assert world.confirmed
    wanted = {"account": "ACCOUNT_REVENUE"}
    found = world.eventually(f"{ACCOUNTING}GetAccount", wanted, "balances")
    assert {each["type"] for each in found["balances"]} == {"ACCOUNT_TYPE_INCOME"}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ACCOUNTING}GetAccount")
    assert world.refused(*bad, {}).fields == ["account"]


@row(f"{ACCOUNTING}Reconcile")
def _(world: World) -> None:
    assert world.confirmed
    assert world.call(f"{ACCOUNTING}Reconcile", {"page_size": 1})["compared"] > 0
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ACCOUNTING}Reconcile")
    assert world.refused(*bad, {"page_token": "?"}).fields == ["page_token"]


# Analytics


@row(f"{ANALYTICS}QueryMetrics")
def _(world: World) -> None:
    world.until_mailed(world.confirmed)
    wanted = {"dimension": "DIMENSION_STATUS"}
    found = world.eventually(f"{ANALYTICS}QueryMetrics", wanted, "metrics")
    assert {metric["currency_code"] for metric in found["metrics"]} == {"EUR"}
    assert int(found["completeness"]["revision"]) > 0
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ANALYTICS}QueryMetrics")
    assert world.refused(*bad, {**wanted, "page_token": "?"}).fields == ["page_token"]


@row(f"{ANALYTICS}WatchMetrics")
def _(world: World) -> None:
    wanted = {"dimension": "DIMENSION_COUNTRY"}
    call = world.start(f"{ANALYTICS}WatchMetrics", wanted)
    first = call.message()
    assert first["reset"]
    world.place()
    changed = call.message()
    call.cancel()
    assert int(changed["revision"]) > int(first["revision"])
    future = {**wanted, "after_revision": str(10**9)}
    refusal = ("OUT_OF_RANGE", "REVISION_IN_FUTURE")
    world.refused(*refusal, f"{ANALYTICS}WatchMetrics", future)


@row(f"{ANALYTICS}ListViews")
def _(world: World) -> None:
    found = world.eventually(f"{ANALYTICS}ListViews", {}, "views")
    assert [view["name"] for view in found["views"]] == ["sales"]
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ANALYTICS}ListViews")
    assert world.refused(*bad, {"page_token": "?"}).fields == ["page_token"]


@row(f"{ANALYTICS}GetView")
def _(world: World) -> None:
    assert world.call(f"{ANALYTICS}GetView", {"name": "sales"})["view"]["name"] == "sales"
    world.refused("NOT_FOUND", "NOT_FOUND", f"{ANALYTICS}GetView", {"name": "unknown"})


@row(f"{ANALYTICS}RebuildView")
def _(world: World) -> None:
    method = f"{ANALYTICS}RebuildView"
    view = world.call(method, {"name": "sales"}, key=uuid7())["view"]
    assert int(view["rebuild"]["generation"]) > 0
    world.refused("NOT_FOUND", "NOT_FOUND", method, {"name": "unknown"}, key=uuid7())


# Orders


@row(f"{ORDERS}CreateOrder")
def _(world: World) -> None:
    order = world.call(f"{ORDERS}CreateOrder", world.basket(2), key=uuid7())["order"]
    assert order["status"] == "ORDER_STATUS_CREATED"
    assert order["total"]["minor_units"] == "998"
    rejected = world.call(f"{ORDERS}CreateOrder", world.basket(9999), key=uuid7())["order"]
    assert rejected["status"] == "ORDER_STATUS_REJECTED"
    assert rejected["failure"]["reason"] == "FAILURE_REASON_OUT_OF_STOCK"
    stranger = world.basket(customer_id=UNKNOWN)
    refusal = ("FAILED_PRECONDITION", "UNKNOWN_CUSTOMER")
    world.refused(*refusal, f"{ORDERS}CreateOrder", stranger, key=uuid7())
    assert world.ending(order["order_id"]) == "ORDER_STATUS_CONFIRMED"


@row(f"{ORDERS}SubmitOrder")
def _(world: World) -> None:
    submit = {"order": world.basket(2)}
    order_id = world.call(f"{ORDERS}SubmitOrder", submit, key=uuid7())["order_id"]
    world.until_exists(order_id)
    assert world.ending(order_id) == "ORDER_STATUS_CONFIRMED"
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ORDERS}SubmitOrder")
    assert world.refused(*bad, {}, key=uuid7()).fields == ["order"]


@row(f"{ORDERS}GetPaymentInstruction")
def _(world: World) -> None:
    method = f"{ORDERS}GetPaymentInstruction"
    order_id = world.place(card_token="tok_slow")
    assert world.call(method, {"order_id": order_id}) == {"card_token": "tok_slow"}
    world.refused("NOT_FOUND", "NOT_FOUND", method, {"order_id": UNKNOWN})


@row(f"{ORDERS}GetOrder")
def _(world: World) -> None:
    found = world.call(f"{ORDERS}GetOrder", {"order_id": world.confirmed})["order"]
    assert found["status"] == "ORDER_STATUS_CONFIRMED"
    assert found["tracking_number"]
    world.refused("NOT_FOUND", "NOT_FOUND", f"{ORDERS}GetOrder", {"order_id": UNKNOWN})


@row(f"{ORDERS}ListOrders")
def _(world: World) -> None:
    both = {world.confirmed, world.place()}
    wanted = {"customer_id": world.customer, "page_size": 1}
    listed, token = set(), ""
    while True:
        page = world.call(f"{ORDERS}ListOrders", {**wanted, "page_token": token})
        listed |= {order["order_id"] for order in page["orders"]}
        token = page["next_page_token"]
        if not token:
            break
    assert both <= listed
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ORDERS}ListOrders")
    assert world.refused(*bad, {"page_token": "?"}).fields == ["page_token"]


@row(f"{ORDERS}CancelOrder")
def _(world: World) -> None:
    slow = world.place(card_token="tok_slow")
    cancel = {"order_id": slow, "reason": "too slow"}
    cancelled = world.call(f"{ORDERS}CancelOrder", cancel, key=uuid7())["order"]
    assert cancelled["status"] == "ORDER_STATUS_UNDOING"
    world.expect(slow, "CANCELLED")
    late = {"order_id": world.confirmed}
    refusal = ("FAILED_PRECONDITION", "ORDER_ENDED")
    world.refused(*refusal, f"{ORDERS}CancelOrder", late, key=uuid7())


@row(f"{ORDERS}StreamOrderUpdates")
def _(world: World) -> None:
    updates = world.updates(world.place())
    assert [int(update["sequence"]) for update in updates] == [1, 2, 3, 4, 5, 6]
    assert updates[-1]["event_type"] == "shop.orders.v1.OrderConfirmed"
    assert world.updates(world.confirmed, after=6) == []
    future = {"order_id": world.confirmed, "after_sequence": "7"}
    refusal = ("OUT_OF_RANGE", "SEQUENCE_IN_FUTURE")
    world.refused(*refusal, f"{ORDERS}StreamOrderUpdates", future)


@row(f"{ORDERS}BulkUpdateOrders")
def _(world: World) -> None:
    slow, done = world.place(card_token="tok_slow"), world.confirmed
    note = {"order_id": slow, "add_note": "Rang twice"}
    cancels = [{"order_id": order_id, "cancel_reason": "all"} for order_id in (slow, done)]
    summary = world.call(f"{ORDERS}BulkUpdateOrders", note, *cancels, key=uuid7())
    assert (summary["applied"], summary["refused"]) == (2, 1)
    (refusal,) = summary["refusals"]
    assert (refusal["index"], refusal["reason"]) == (2, "ORDER_ENDED")
    world.expect(slow, "CANCELLED")
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ORDERS}BulkUpdateOrders")
    world.refused(*bad, key=uuid7())


@row(f"{ORDERS}TrackOrders")
def _(world: World) -> None:
    slow = world.place(card_token="tok_slow")
    call = world.start(f"{ORDERS}TrackOrders", {"add": {"order_id": slow}}, open=True)
    assert call.message()["update"]["sequence"] == "1"
    call.send({"add": {"order_id": UNKNOWN}})
    call.send({"add": {"order_id": world.confirmed, "after_sequence": "5"}})
    call.send({"remove": slow})
    call.close()
    ended = call.end()
    assert ended.code == "OK"
    causes = {
        it["order_id"]: it["untracked"]["cause"] for it in ended.messages if "untracked" in it
    }
    assert causes == {
        slow: "CAUSE_REMOVED",
        UNKNOWN: "CAUSE_NOT_FOUND",
        world.confirmed: "CAUSE_ENDED",
    }
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ORDERS}TrackOrders")
    world.refused(*bad, {"remove": "?"})


def _reads_events(world: World, service: str, first: str) -> None:
    """The record of a service, of which `first` is the first event of a good order."""
    order_id = world.confirmed
    events = world.all(f"{service}ReadEvents", {})
    assert [int(it["position"]) for it in events] == list(range(1, len(events) + 1))
    mine = [it["event"] for it in events if it["event"]["key"] == order_id]
    first = f"{service.rpartition('.')[0]}.{first}"
    assert mine[0]["payload"]["@type"] == f"type.googleapis.com/{first}"
    call = world.start(f"{service}ReadEvents", {"follow": True, "after_position": len(events)})
    placed = world.place()
    while (seen := call.message()["event"])["key"] != placed:
        pass
    call.cancel()
    assert seen["type"] == first
    future = {"after_position": str(10**9)}
    refusal = ("OUT_OF_RANGE", "POSITION_IN_FUTURE")
    world.refused(*refusal, f"{service}ReadEvents", future)


for _service, _first in (
    (ORDERS, "OrderPlaced"),
    (INVENTORY, "StockReserved"),
    (PAYMENTS, "PaymentCaptured"),
    (SHIPPING, "ShipmentBooked"),
):
    ROWS[f"{_service}ReadEvents"] = partial(_reads_events, service=_service, first=_first)


# Operator


def _intervention(saga_id: str, **more: object) -> Json:
    return {"saga_id": saga_id, "reason": "as agreed", **more}


def _forged(world: World) -> str:
    """A parked piece of work of the notifications, of a queue that nobody works on."""
    work_id = uuid7()
    assert world.servers.execute(
        "notifications",
        "INSERT INTO work (id, queue, key, seq, payload, state, due_at, attempts, owner,"
        " lease_until, history, trace, created_at)"
        " VALUES (?, 'compat', ?, 0, x'00', 'parked', 0, 1, '', 0, '[]', '{}', 0)",
        work_id,
        work_id,
    )
    return work_id


@row(f"{WORK}ListWork")
def _(world: World) -> None:
    forged = {_forged(world), _forged(world)}
    wanted = {"queue": "compat", "page_size": 500}
    listed = world.call(f"{WORK}ListWork", wanted, target="notifications")["items"]
    assert forged <= {item["work_id"] for item in listed}
    for target in world.servers.running:
        bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{WORK}ListWork")
        assert world.refused(*bad, {"page_size": -1}, target=target).fields == ["page_size"]


@row(f"{WORK}GetQueues")
def _(world: World) -> None:
    _forged(world)
    for target in world.servers.running:
        assert world.call(f"{WORK}GetQueues", {}, target=target)["queues"][0]["queue"] == "outbox"
    queues = world.call(f"{WORK}GetQueues", {}, target="notifications")["queues"]
    assert any(it["queue"] == "compat" and int(it["parked"]) for it in queues)


@row(f"{WORK}GetWork")
def _(world: World) -> None:
    work_id = _forged(world)
    found = world.call(f"{WORK}GetWork", {"work_id": work_id}, target="notifications")
    assert found["item"]["state"] == "WORK_STATE_PARKED"
    unknown = {"work_id": UNKNOWN}
    world.refused("NOT_FOUND", "NOT_FOUND", f"{WORK}GetWork", unknown, target="notifications")


@row(f"{WORK}RetryWork")
def _(world: World) -> None:
    retry = {"work_id": _forged(world), "reason": "once more"}
    item = world.call(f"{WORK}RetryWork", retry, target="notifications", key=uuid7())["item"]
    assert item["state"] == "WORK_STATE_READY"
    gone = {**retry, "work_id": UNKNOWN}
    refusal = ("NOT_FOUND", "NOT_FOUND", f"{WORK}RetryWork")
    world.refused(*refusal, gone, target="notifications", key=uuid7())


@row(f"{WORK}DiscardWork")
def _(world: World) -> None:
    discard = {"work_id": _forged(world), "reason": "nobody needs it"}
    item = world.call(f"{WORK}DiscardWork", discard, target="notifications", key=uuid7())["item"]
    assert item["work_id"] == discard["work_id"]
    parked = {**discard, "work_id": world.parked(world.stuck())}
    refusal = ("FAILED_PRECONDITION", "SAGA_WORK", f"{WORK}DiscardWork")
    world.refused(*refusal, parked, target="orders", key=uuid7())


@row(f"{WORK}RetryWorkMatching")
def _(world: World) -> None:
    _matching(world, "RetryWorkMatching")


@row(f"{WORK}DiscardWorkMatching")
def _(world: World) -> None:
    _matching(world, "DiscardWorkMatching")


def _matching(world: World, rpc: str) -> None:
    """One item of several, by its id."""
    ids = [_forged(world)]
    only: Json = {"filter": {"work_ids": ids}, "reason": "all of it"}
    done = world.call(f"{WORK}{rpc}", only, target="notifications", key=uuid7())
    assert [item["work_id"] for item in done["items"]] == ids
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{WORK}{rpc}")
    unfiltered = {"reason": "all of it"}
    refused = world.refused(*bad, unfiltered, target="notifications", key=uuid7())
    assert refused.fields == ["filter"]


@row(f"{SAGAS}GetSagaCounts")
def _(world: World) -> None:
    assert world.confirmed
    counts = world.call(f"{SAGAS}GetSagaCounts", {}, target="orders")["counts"]
    assert "SAGA_PHASE_DONE" in {each["phase"] for each in counts}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{SAGAS}GetSagaCounts")
    refused = world.refused(*bad, {"ended_within": "-1s"}, target="orders")
    assert refused.fields == ["ended_within"]


@row(f"{SAGAS}ListSagas")
def _(world: World) -> None:
    order_id = world.confirmed
    wanted = {"definition": "order", "phase": "SAGA_PHASE_DONE", "page_size": 500}
    sagas = world.call(f"{SAGAS}ListSagas", wanted, target="orders")["sagas"]
    assert order_id in {saga["saga_id"] for saga in sagas}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{SAGAS}ListSagas")
    assert world.refused(*bad, {"phase": 99}, target="orders").fields == ["phase"]


@row(f"{SAGAS}GetSaga")
def _(world: World) -> None:
    found = world.call(f"{SAGAS}GetSaga", {"saga_id": world.confirmed}, target="orders")
    assert found["saga"]["phase"] == "SAGA_PHASE_DONE"
    assert [it["step"] for it in found["history"]][:2] == ["reserve", "charge"]
    unknown = {"saga_id": UNKNOWN}
    world.refused("NOT_FOUND", "NOT_FOUND", f"{SAGAS}GetSaga", unknown, target="orders")


@row(f"{SAGAS}RetrySaga")
def _(world: World) -> None:
    stuck = world.stuck()
    world.parked(stuck)
    retry = _intervention(stuck)
    saga = world.call(f"{SAGAS}RetrySaga", retry, target="orders", key=uuid7())["saga"]
    assert (saga["phase"], saga["step"]) == ("SAGA_PHASE_FORWARD", "commit_stock")
    ended = _intervention(world.confirmed)
    refusal = ("FAILED_PRECONDITION", "SAGA_ENDED", f"{SAGAS}RetrySaga")
    world.refused(*refusal, ended, target="orders", key=uuid7())


@row(f"{SAGAS}SkipStep")
def _(world: World) -> None:
    stuck = world.stuck()
    early = _intervention(stuck, step="charge")
    refusal = ("FAILED_PRECONDITION", "STEP_CHANGED", f"{SAGAS}SkipStep")
    world.refused(*refusal, early, target="orders", key=uuid7())
    world.parked(stuck)
    skip = _intervention(stuck, step="commit_stock")
    saga = world.call(f"{SAGAS}SkipStep", skip, target="orders", key=uuid7())["saga"]
    assert saga["step"] == "confirm"
    assert world.ending(stuck) == "ORDER_STATUS_CONFIRMED"


@row(f"{SAGAS}CompensateSaga")
def _(world: World) -> None:
    slow = world.place(card_token="tok_slow")
    turn = _intervention(slow)
    saga = world.call(f"{SAGAS}CompensateSaga", turn, target="orders", key=uuid7())["saga"]
    assert saga["cancelled"]
    world.expect(slow, "CANCELLED")
    refusal = ("FAILED_PRECONDITION", "TOO_LATE", f"{SAGAS}CompensateSaga")
    stuck = _intervention(world.stuck())
    world.refused(*refusal, stuck, target="orders", key=uuid7())


@row(f"{SAGAS}AbandonSaga")
def _(world: World) -> None:
    give_up = _intervention(world.stuck())
    saga = world.call(f"{SAGAS}AbandonSaga", give_up, target="orders", key=uuid7())["saga"]
    assert saga["phase"] == "SAGA_PHASE_ABANDONED"
    ended = _intervention(world.confirmed)
    refusal = ("FAILED_PRECONDITION", "SAGA_ENDED", f"{SAGAS}AbandonSaga")
    world.refused(*refusal, ended, target="orders", key=uuid7())


@row(f"{AUDIT}ListAudit")
def _(world: World) -> None:
    discard = {"work_id": _forged(world), "reason": "for the record"}
    world.call(f"{WORK}DiscardWork", discard, target="notifications", key=uuid7())
    wanted = {"target": discard["work_id"]}
    (record,) = world.call(f"{AUDIT}ListAudit", wanted, target="notifications")["records"]
    assert record["reason"] == "for the record"
    assert record["method"] == f"{WORK}DiscardWork"
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{AUDIT}ListAudit")
    for target in world.servers.running:
        assert world.refused(*bad, {"page_token": "?"}, target=target).fields == ["page_token"]


def _overridden(world: World) -> Json:
    """A method of the orders that has a live policy: what names it in a request."""
    named = {"method": f"{ORDERS}GetOrder", "reason": "as agreed"}
    override = {**named, "override": {"policy": {"timeout": "1.500s"}}}
    method = world.call(f"{MESH}SetOverride", override, target="orders")["method"]
    assert (method["source"], method["timeout"]) == ("SOURCE_LIVE", "1.500s")
    return named


@row(f"{MESH}GetState")
def _(world: World) -> None:
    for target in world.servers.running:
        state = world.call(f"{MESH}GetState", {"method_prefix": "nothing."}, target=target)
        assert (state["service"], state["methods"]) == (target, [])
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{MESH}GetState")
    assert world.refused(*bad, {"method_prefix": "?"}, target="orders").fields == ["method_prefix"]


@row(f"{MESH}WatchState")
def _(world: World) -> None:
    call = world.start(f"{MESH}WatchState", {"interval": "0.500s"}, target="orders")
    first = call.message()
    call.cancel()
    assert first["state"]["service"] == "orders"
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{MESH}WatchState")
    assert world.refused(*bad, {"interval": "61s"}, target="orders").fields == ["interval"]


@row(f"{MESH}ListMethods")
def _(world: World) -> None:
    wanted = {"method_prefix": f"{ORDERS}CreateOrder"}
    (method,) = world.call(f"{MESH}ListMethods", wanted, target="orders")["methods"]
    assert method["served"]
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{MESH}ListMethods")
    assert world.refused(*bad, {"page_size": -1}, target="orders").fields == ["page_size"]


@row(f"{MESH}SetOverride")
def _(world: World) -> None:
    named = _overridden(world)
    state = world.call(f"{MESH}GetState", {"method_prefix": named["method"]}, target="orders")
    (method,) = state["methods"]
    assert method["override"]["policy"]["timeout"] == "1.500s"
    world.call(f"{MESH}ClearOverride", named, target="orders")
    nonsense = {**named, "override": {"policy": {"timeout": "0s"}}}
    refusal = ("INVALID_ARGUMENT", "OVERRIDE_REFUSED", f"{MESH}SetOverride")
    world.refused(*refusal, nonsense, target="orders")


@row(f"{MESH}ClearOverride")
def _(world: World) -> None:
    named = _overridden(world)
    method = world.call(f"{MESH}ClearOverride", named, target="orders")["method"]
    assert "override" not in method
    assert method["timeout"] == "2s"
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{MESH}ClearOverride")
    assert world.refused(*bad, {**named, "reason": ""}, target="orders").fields == ["reason"]


@row(f"{MESH}InjectFault")
def _(world: World) -> None:
    wanted = {"method": f"{NOTIFICATIONS}GetNotification", "lasting": "60s", "reason": "as agreed"}
    abort = {"abort_code": "STATUS_CODE_DATA_LOSS", "abort_percent": 100}
    fault = {**wanted, "fault": abort}
    method = world.call(f"{MESH}InjectFault", fault, target="notifications")["method"]
    assert method["fault"]["abort_percent"] == 100
    unknown = {"notification_id": UNKNOWN}
    broken = world.start(f"{NOTIFICATIONS}GetNotification", unknown).end()
    assert broken.code == "DATA_LOSS"
    world.call(f"{MESH}InjectFault", {**wanted, "fault": {}}, target="notifications")
    world.refused("NOT_FOUND", "NOT_FOUND", f"{NOTIFICATIONS}GetNotification", unknown)
    stranger = {**fault, "method": f"{NOTIFICATIONS}NoSuchMethod"}
    refusal = ("NOT_FOUND", "NOT_FOUND", f"{MESH}InjectFault")
    world.refused(*refusal, stranger, target="notifications")


@row(f"{MESH}ClearFault")
def _(world: World) -> None:
    named = {"method": f"{NOTIFICATIONS}GetNotification", "reason": "as agreed"}
    delay = {"delay": "0.001s", "delay_percent": 100}
    fault = {**named, "lasting": "60s", "fault": delay}
    method = world.call(f"{MESH}InjectFault", fault, target="notifications")["method"]
    assert method["fault_reason"] == "as agreed"
    method = world.call(f"{MESH}ClearFault", named, target="notifications")["method"]
    assert "fault" not in method
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{MESH}ClearFault")
    refused = world.refused(*bad, {**named, "reason": ""}, target="notifications")
    assert refused.fields == ["reason"]


@row(f"{HEALTH}GetHealth")
def _(world: World) -> None:
    for target in world.servers.running:
        assert not world.call(f"{HEALTH}GetHealth", {}, target=target)["database_problem"]


def _trace(world: World) -> str:
    """The trace in which an order was placed that has ended since."""
    order_id = world.place()
    assert world.ending(order_id) == "ORDER_STATUS_CONFIRMED"
    (trace, *_) = world.call(f"{TRACES}FindTraces", {"key": order_id}, target="orders")["traces"]
    assert trace["event_types"][0] == "shop.orders.v1.OrderPlaced"
    return str(trace["trace_id"])


@row(f"{TRACES}FindTraces")
def _(world: World) -> None:
    assert _trace(world)
    assert world.call(f"{TRACES}FindTraces", {"key": UNKNOWN}, target="orders")["traces"] == []
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{TRACES}FindTraces")
    assert world.refused(*bad, {"key": ""}, target="orders").fields == ["key"]


@row(f"{TRACES}ListFlows")
def _(world: World) -> None:
    traced = _trace(world)
    flows = world.call(f"{TRACES}ListFlows", {"page_size": 500}, target="orders")["flows"]
    assert traced in {flow["trace_id"] for flow in flows}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{TRACES}ListFlows")
    assert world.refused(*bad, {"page_size": -1}, target="orders").fields == ["page_size"]


@row(f"{TRACES}ListSpans")
def _(world: World) -> None:
    wanted = {"trace_id": _trace(world)}
    spans = world.call(f"{TRACES}ListSpans", wanted, target="orders")["spans"]
    assert f"{ORDERS}CreateOrder" in {span["name"] for span in spans}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{TRACES}ListSpans")
    assert world.refused(*bad, {"trace_id": "?"}, target="orders").fields == ["trace_id"]


@row(f"{OPERATIONS}ListOperations")
def _(world: World) -> None:
    failed = {"state": "OPERATION_STATE_FAILED"}
    found = world.call(f"{OPERATIONS}ListOperations", failed, target="notifications")
    assert found["operations"] == []
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{OPERATIONS}ListOperations")
    answer = world.refused(*bad, {"page_size": 501}, target="notifications")
    assert answer.fields == ["page_size"]


def _of_no_operation(rpc: str) -> Row:
    """No job of the shop is needed to see that an operation is asked for."""

    def drive(world: World) -> None:
        name = f"{OPERATIONS}{rpc}"
        unknown = {"operation_id": UNKNOWN}
        world.refused("NOT_FOUND", "NOT_FOUND", name, unknown, target="notifications")
        bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", name)
        answer = world.refused(*bad, {"operation_id": "?"}, target="notifications")
        assert answer.fields == ["operation_id"]

    return drive


for _rpc in ("GetOperation", "WatchOperation", "CancelOperation"):
    row(f"{OPERATIONS}{_rpc}")(_of_no_operation(_rpc))


@row(f"{ANALYTICS}GenerateReport")
def _(world: World) -> None:
    month = {"month": "2026-01", "currency_code": "EUR"}
    operation = world.call(f"{ANALYTICS}GenerateReport", month, key=uuid7())["operation"]
    watch = {"operation_id": operation["operation_id"]}
    (*_, last) = world.all(f"{OPERATIONS}WatchOperation", watch, target="analytics")
    assert last["operation"]["state"] == "OPERATION_STATE_SUCCEEDED"
    assert last["operation"]["response"]["month"] == "2026-01"
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{ANALYTICS}GenerateReport")
    assert world.refused(*bad, {**month, "month": "2026"}, key=uuid7()).fields == ["month"]


# Webhooks


def _webhook(world: World) -> str:
    """A webhook to a host that there is not."""
    wanted = {
        "url": "https://nowhere.invalid/hook",
        "event_types": ["shop.orders.v1.OrderConfirmed"],
        "condition": "event.total.minor_units > 100000",
    }
    created = world.call(f"{WEBHOOKS}CreateWebhook", wanted, key=uuid7())
    assert created["secret"].startswith("whsec_")
    assert created["webhook"]["state"] == "WEBHOOK_STATE_ACTIVE"
    return str(created["webhook"]["webhook_id"])


def _refuses_unknown_webhooks(world: World, rpc: str, key: str | None = None) -> None:
    times = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    unknown = {"webhook_id": UNKNOWN, **(times if rpc == "ReplayWebhook" else {})}
    world.refused("NOT_FOUND", "NOT_FOUND", f"{WEBHOOKS}{rpc}", unknown, key=key)


@row(f"{WEBHOOKS}CreateWebhook")
def _(world: World) -> None:
    assert _webhook(world)
    within = {"url": "https://10.0.0.1/", "event_types": ["shop.orders.v1.OrderPaid"]}
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{WEBHOOKS}CreateWebhook")
    assert world.refused(*bad, within, key=uuid7()).fields == ["url"]


@row(f"{WEBHOOKS}GetWebhook")
def _(world: World) -> None:
    webhook_id = _webhook(world)
    found = world.call(f"{WEBHOOKS}GetWebhook", {"webhook_id": webhook_id})["webhook"]
    assert found["url"] == "https://nowhere.invalid/hook"
    _refuses_unknown_webhooks(world, "GetWebhook")


@row(f"{WEBHOOKS}ListWebhooks")
def _(world: World) -> None:
    webhook_id = _webhook(world)
    (first, *_) = world.call(f"{WEBHOOKS}ListWebhooks", {"page_size": 1})["webhooks"]
    assert first["webhook_id"] == webhook_id
    bad = ("INVALID_ARGUMENT", "INVALID_ARGUMENT", f"{WEBHOOKS}ListWebhooks")
    assert world.refused(*bad, {"page_size": 501}).fields == ["page_size"]


@row(f"{WEBHOOKS}UpdateWebhook")
def _(world: World) -> None:
    pause = {"webhook_id": _webhook(world), "state": "WEBHOOK_STATE_PAUSED", "rotate_secret": True}
    paused = world.call(f"{WEBHOOKS}UpdateWebhook", pause, key=uuid7())
    assert paused["webhook"]["state"] == "WEBHOOK_STATE_PAUSED"
    assert paused["secret"].startswith("whsec_")
    _refuses_unknown_webhooks(world, "UpdateWebhook", key=uuid7())


@row(f"{WEBHOOKS}DeleteWebhook")
def _(world: World) -> None:
    webhook = {"webhook_id": _webhook(world)}
    world.call(f"{WEBHOOKS}DeleteWebhook", webhook, key=uuid7())
    world.refused("NOT_FOUND", "NOT_FOUND", f"{WEBHOOKS}GetWebhook", webhook)
    _refuses_unknown_webhooks(world, "DeleteWebhook", key=uuid7())


@row(f"{WEBHOOKS}TestWebhook")
def _(world: World) -> None:
    webhook = {"webhook_id": _webhook(world)}
    said = world.call(f"{WEBHOOKS}TestWebhook", webhook, key=uuid7())
    assert not said["delivered"]
    assert said["error"]
    _refuses_unknown_webhooks(world, "TestWebhook", key=uuid7())


@row(f"{WEBHOOKS}ReplayWebhook")
def _(world: World) -> None:
    times = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    replay = {"webhook_id": _webhook(world), **times}
    operation = world.call(f"{WEBHOOKS}ReplayWebhook", replay, key=uuid7())["operation"]
    watch = {"operation_id": operation["operation_id"]}
    (*_, last) = world.all(f"{OPERATIONS}WatchOperation", watch, target="notifications")
    assert last["operation"]["state"] == "OPERATION_STATE_SUCCEEDED"
    _refuses_unknown_webhooks(world, "ReplayWebhook", key=uuid7())


@row(f"{WEBHOOKS}ListDeliveries")
def _(world: World) -> None:
    webhook = {"webhook_id": _webhook(world)}
    assert world.call(f"{WEBHOOKS}ListDeliveries", webhook)["deliveries"] == []
    _refuses_unknown_webhooks(world, "ListDeliveries")
