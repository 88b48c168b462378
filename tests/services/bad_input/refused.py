"""The second table: requests that their contract allows, and that the state of the shop refuses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.ops.v1 import audit_pb2 as audit
from accord.ops.v1 import mesh_pb2 as mesh
from accord.ops.v1 import operation_pb2 as operation
from accord.ops.v1 import saga_pb2 as sagas
from accord.ops.v1 import trace_pb2 as trace
from accord.ops.v1 import work_pb2 as work
from accord.v1 import policy_pb2 as policy
from accord_runtime.grpc.page_tokens import encode_token
from shop.accounting.v1 import accounting_pb2 as accounting
from shop.analytics.v1 import analytics_pb2 as analytics
from shop.common.v1.money_pb2 import Money
from shop.customers.v1 import customers_pb2 as customers
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.notifications.v1 import notifications_pb2 as notifications
from shop.notifications.v1 import webhooks_pb2 as webhooks
from shop.orders.v1 import orders_pb2 as orders
from shop.payments.v1 import payments_pb2 as payments
from shop.sandbox.v1 import sandbox_pb2 as sandbox
from shop.shipping.v1 import shipping_pb2 as shipping
from tests.services.bad_input.contract import METHOD
from tests.services.bad_input.world import EMAIL, USED_KEY, World, capture, parcel
from tests.services.bad_input.wrong import ID, TRACE_ID
from tests.support.shop import address, euros, order_request

Requests = Callable[[World], Message | Sequence[Message]]

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
EXISTS: Final = grpc.StatusCode.ALREADY_EXISTS
PRECONDITION: Final = grpc.StatusCode.FAILED_PRECONDITION
RANGE: Final = grpc.StatusCode.OUT_OF_RANGE
EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, slots=True)
class Row:
    """A call that is refused."""

    rpc: str
    case: str
    code: grpc.StatusCode
    reason: str
    requests: Requests
    field: str | None = None
    """The field that is named; None for none."""
    key: str = ""
    """Idempotency key; a new one by default where one is required."""

    def __str__(self) -> str:
        return f"{self.rpc.rpartition('.')[2]}-{self.case}"


_PRICE: Final = euros(499)
_DOLLARS: Final = Money(minor_units=499, currency_code="USD")

AUDIT: Final = "accord.ops.v1.AuditService/"
MESH: Final = "accord.ops.v1.MeshService/"
OPERATIONS: Final = "accord.ops.v1.OperationService/"
SAGAS: Final = "accord.ops.v1.SagaService/"
TRACES: Final = "accord.ops.v1.TraceService/"
WORK: Final = "accord.ops.v1.WorkService/"
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


def _reuse(rpc: str, requests: Requests) -> Row:
    return Row(
        rpc,
        "key of another request",
        INVALID,
        "IDEMPOTENCY_KEY_REUSED",
        requests,
        "metadata.idempotency-key",
        USED_KEY,
    )


def _customer(email: str) -> Requests:
    return lambda world: customers.CreateCustomerRequest(name="Eve", email=email)


def _product(price: Money, on_hand: int) -> Requests:
    return lambda world: inventory.UpsertProductRequest(
        sku="tea", name="tea", price=price, on_hand=on_hand
    )


def _reserve(
    order_id: str = ID,
    quantity: int = 2,
) -> inventory.ReserveStockRequest:
    line = inventory.ReserveLine(sku="tea", quantity=quantity, unit_price=_PRICE)
    return inventory.ReserveStockRequest(order_id=order_id, lines=[line])


def _charge(
    order_id: str,
    amount: Money = _PRICE,
    card: str = "tok_visa",
) -> payments.ChargeRequest:
    return payments.ChargeRequest(order_id=order_id, amount=amount, card_token=card)


def _ship(order_id: str, country: str = "DE") -> shipping.CreateShipmentRequest:
    line = shipping.ParcelLine(sku="tea", quantity=2)
    return shipping.CreateShipmentRequest(order_id=order_id, ship_to=address(country), lines=[line])


def _saga(rpc: str, request: Callable[[str], Message]) -> list[Row]:
    """An operator's way out for a saga that is not there, and for one that needs none."""
    name = SAGAS + rpc
    return [
        Row(name, "unknown", NOT_FOUND, "NOT_FOUND", lambda world: request(ID)),
        Row(name, "ended", PRECONDITION, "SAGA_ENDED", lambda world: request(world.confirmed)),
    ]


def _of_no_operation(rpc: str, request: Message) -> list[Row]:
    return [Row(OPERATIONS + rpc, "unknown", NOT_FOUND, "NOT_FOUND", lambda world: request)]


def _webhook(case: str, field: str, **changes: object) -> Row:
    values = {"url": "https://shop.example/", "event_types": ["shop.orders.v1.OrderConfirmed"]}
    request = webhooks.CreateWebhookRequest(**{**values, **changes})  # type: ignore[arg-type]
    name = WEBHOOKS + "CreateWebhook"
    return Row(name, case, INVALID, "INVALID_ARGUMENT", lambda world: request, field)


def _replay(case: str, since: int, until: int) -> Row:
    request = webhooks.ReplayWebhookRequest(
        webhook_id=ID, since=Timestamp(seconds=since), until=Timestamp(seconds=until)
    )
    name = WEBHOOKS + "ReplayWebhook"
    return Row(name, case, INVALID, "INVALID_ARGUMENT", lambda world: request, "until")


def _of_no_webhook(rpc: str, request: Message) -> Row:
    return Row(WEBHOOKS + rpc, "unknown", NOT_FOUND, "NOT_FOUND", lambda world: request)


UNKNOWN_METHOD: Final = "shop.orders.v1.OrderService/Unknown"

_POLICIES: Final = {
    "zero timeout": policy.MethodPolicy(timeout=Duration()),
    "negative timeout": policy.MethodPolicy(timeout=Duration(seconds=-1)),
    "timeout of centuries": policy.MethodPolicy(timeout=Duration(seconds=2**63 - 1)),
    "99 attempts": policy.MethodPolicy(retry=policy.Retry(max_attempts=99)),
    "no such code": policy.MethodPolicy(
        retry=policy.Retry(max_attempts=2, codes=[99])  # type: ignore[list-item]
    ),
    "half a percentile": policy.MethodPolicy(hedge=policy.Hedge(percentile=0.5)),
    "no percentile": policy.MethodPolicy(hedge=policy.Hedge(percentile=float("nan"))),
    "more than all": policy.MethodPolicy(breaker=policy.Breaker(failure_percent=101)),
    "no rate": policy.MethodPolicy(limit=policy.Limit(rate=policy.Rate(per_second=0))),
    "rate that is no number": policy.MethodPolicy(
        limit=policy.Limit(rate=policy.Rate(per_second=float("nan")))
    ),
    "bottomless": policy.MethodPolicy(max_depth=9),
    "cache of no time": policy.MethodPolicy(cache=policy.Cache()),
    "another caller": policy.MethodPolicy(allow=["spiffe://shop.internal/mallory"]),
    "another key": policy.MethodPolicy(
        idempotency=policy.Idempotency(key=policy.Idempotency.KEY_NATURAL)
    ),
    "another floor": policy.MethodPolicy(floor=policy.Floor(max_attempts=1)),
}
"""Live policies that contradict themselves, or touch what is not a matter of operation."""


def _override(method: str, wanted: policy.MethodPolicy) -> mesh.SetOverrideRequest:
    return mesh.SetOverrideRequest(method=method, override=mesh.Override(policy=wanted), reason="r")


def _fault(fault: mesh.Fault, method: str = METHOD) -> mesh.InjectFaultRequest:
    return mesh.InjectFaultRequest(
        method=method, fault=fault, lasting=Duration(seconds=1), reason="r"
    )


def _page_tokens(rpc: str, filters: dict[str, str], request: Callable[[str], Message]) -> list[Row]:
    tokens = {
        "no token": "?",
        "not ASCII": "Ö",
        "empty JSON": "e30=",
        "no list": "MQ==",
        "other filters": encode_token({"other": "filters"}, ID),
        "half a surrogate": encode_token(filters, "\ud800"),
        "a NUL": encode_token(filters, "\0"),
    }
    return [
        Row(
            rpc,
            f"page token: {case}",
            INVALID,
            "INVALID_ARGUMENT",
            lambda world, token=token: request(token),  # type: ignore[misc]
            "page_token",
        )
        for case, token in tokens.items()
    ]


_DAY_FILTERS: Final = {"dimension": "2", "start": "1970-01-01T00:00:00Z"}

REFUSED: Final[Sequence[Row]] = (
    # Accounting
    *_page_tokens(
        ACCOUNTING + "ListTransactions",
        {"order_id": ""},
        lambda token: accounting.ListTransactionsRequest(page_token=token),
    ),
    *_page_tokens(
        ACCOUNTING + "Reconcile",
        {"customer_id": "", "status": "0"},
        lambda token: accounting.ReconcileRequest(page_token=token),
    ),
    # Analytics
    Row(
        ANALYTICS + "WatchMetrics",
        "future",
        RANGE,
        "REVISION_IN_FUTURE",
        lambda world: analytics.WatchMetricsRequest(
            dimension=analytics.DIMENSION_DAY, after_revision=10**9
        ),
    ),
    Row(
        ANALYTICS + "GetView",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: analytics.GetViewRequest(name="nothing"),
    ),
    Row(
        ANALYTICS + "RebuildView",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: analytics.RebuildViewRequest(name="nothing"),
    ),
    _reuse(ANALYTICS + "RebuildView", lambda world: analytics.RebuildViewRequest(name="another")),
    *_page_tokens(
        ANALYTICS + "QueryMetrics",
        {**_DAY_FILTERS, "end": _DAY_FILTERS["start"]},
        lambda token: analytics.QueryMetricsRequest(
            dimension=analytics.DIMENSION_DAY, page_token=token
        ),
    ),
    *_page_tokens(
        ANALYTICS + "ListViews", {}, lambda token: analytics.ListViewsRequest(page_token=token)
    ),
    # Customers
    Row(CUSTOMERS + "CreateCustomer", "taken", EXISTS, "EMAIL_TAKEN", _customer(EMAIL)),
    Row(CUSTOMERS + "CreateCustomer", "case", EXISTS, "EMAIL_TAKEN", _customer(EMAIL.upper())),
    _reuse(CUSTOMERS + "CreateCustomer", _customer("eve@example.com")),
    Row(
        CUSTOMERS + "GetCustomer",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: customers.GetCustomerRequest(customer_id=ID),
    ),
    # Inventory
    Row(
        INVENTORY + "UpsertProduct",
        "other currency",
        PRECONDITION,
        "CURRENCY_CHANGED",
        _product(_DOLLARS, 100),
    ),
    Row(
        INVENTORY + "UpsertProduct",
        "less than is reserved",
        PRECONDITION,
        "STOCK_IS_RESERVED",
        _product(euros(499), 0),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "too many",
        PRECONDITION,
        "OUT_OF_STOCK",
        lambda world: _reserve(world.short),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "unknown product",
        PRECONDITION,
        "UNKNOWN_PRODUCT",
        lambda world: _reserve(world.unknown),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "other price",
        PRECONDITION,
        "PRICE_CHANGED",
        lambda world: _reserve(world.cheap),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "other currency",
        PRECONDITION,
        "PRICE_CHANGED",
        lambda world: _reserve(world.foreign),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "released",
        PRECONDITION,
        "RESERVATION_CLOSED",
        lambda world: _reserve(world.released),
    ),
    Row(
        INVENTORY + "ReserveStock",
        "other lines",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: _reserve(world.reserved, quantity=3),
        "lines",
    ),
    _reuse(INVENTORY + "ReserveStock", lambda world: _reserve()),
    Row(
        INVENTORY + "ReleaseStock",
        "committed",
        PRECONDITION,
        "RESERVATION_COMMITTED",
        lambda world: inventory.ReleaseStockRequest(order_id=world.committed),
    ),
    Row(
        INVENTORY + "CommitStock",
        "unknown order",
        PRECONDITION,
        "NOT_RESERVED",
        lambda world: inventory.CommitStockRequest(order_id=ID),
    ),
    Row(
        INVENTORY + "CommitStock",
        "released",
        PRECONDITION,
        "NOT_RESERVED",
        lambda world: inventory.CommitStockRequest(order_id=world.released),
    ),
    Row(
        INVENTORY + "GetStock",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: inventory.GetStockRequest(sku="unknown"),
    ),
    # Notifications
    Row(
        NOTIFICATIONS + "GetNotification",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: notifications.GetNotificationRequest(notification_id=ID),
    ),
    *_page_tokens(
        NOTIFICATIONS + "ListNotifications",
        {"order_id": ""},
        lambda token: notifications.ListNotificationsRequest(page_token=token),
    ),
    Row(
        NOTIFICATIONS + "RecordSent",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: notifications.RecordSentRequest(
            notification_id=ID, sent_at=Timestamp(seconds=1)
        ),
    ),
    # Orders
    _reuse(
        ORDERS + "SubmitOrder",
        lambda world: orders.SubmitOrderRequest(order=order_request(world.customer, {"tea": 2})),
    ),
    Row(
        ORDERS + "CreateOrder",
        "unknown customer",
        PRECONDITION,
        "UNKNOWN_CUSTOMER",
        lambda world: order_request(ID, {"tea": 1}),
    ),
    _reuse(ORDERS + "CreateOrder", lambda world: order_request(world.customer, {"tea": 2})),
    Row(
        ORDERS + "GetOrder",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: orders.GetOrderRequest(order_id=ID),
    ),
    Row(
        ORDERS + "GetOrder",
        "after an event that has not happened",
        RANGE,
        "SEQUENCE_IN_FUTURE",
        lambda world: orders.GetOrderRequest(order_id=world.confirmed, at_sequence=2**63 - 1),
    ),
    Row(
        ORDERS + "GetOrder",
        "in the far future",
        RANGE,
        "TIME_IN_FUTURE",
        lambda world: orders.GetOrderRequest(
            order_id=world.confirmed, at_time=Timestamp(seconds=10**11)
        ),
    ),
    Row(
        ORDERS + "GetOrder",
        "before its first event",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: orders.GetOrderRequest(order_id=world.confirmed, at_time=Timestamp()),
    ),
    *_page_tokens(
        ORDERS + "ListOrders",
        {"customer_id": "", "status": "0"},
        lambda token: orders.ListOrdersRequest(page_token=token),
    ),
    Row(
        ORDERS + "ListOrders",
        "page token of another status",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: orders.ListOrdersRequest(
            status=orders.ORDER_STATUS_PAID,
            page_token=encode_token({"customer_id": "", "status": "0"}, ID),
        ),
        "page_token",
    ),
    Row(
        ORDERS + "CancelOrder",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: orders.CancelOrderRequest(order_id=ID),
    ),
    Row(
        ORDERS + "CancelOrder",
        "after ship",
        PRECONDITION,
        "ORDER_ENDED",
        lambda world: orders.CancelOrderRequest(order_id=world.confirmed),
    ),
    Row(
        ORDERS + "CancelOrder",
        "rejected",
        PRECONDITION,
        "ORDER_ENDED",
        lambda world: orders.CancelOrderRequest(order_id=world.rejected),
    ),
    Row(
        ORDERS + "StreamOrderUpdates",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: orders.StreamOrderUpdatesRequest(order_id=ID),
    ),
    Row(
        ORDERS + "StreamOrderUpdates",
        "from the future",
        RANGE,
        "SEQUENCE_IN_FUTURE",
        lambda world: orders.StreamOrderUpdatesRequest(order_id=world.confirmed, after_sequence=99),
    ),
    Row(
        ORDERS + "StreamOrderUpdates",
        "from the end of time",
        RANGE,
        "SEQUENCE_IN_FUTURE",
        lambda world: orders.StreamOrderUpdatesRequest(
            order_id=world.confirmed, after_sequence=2**63 - 1
        ),
    ),
    Row(
        ORDERS + "GetPaymentInstruction",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: orders.GetPaymentInstructionRequest(order_id=ID),
    ),
    Row(
        ORDERS + "BulkUpdateOrders",
        "empty stream",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: (),
        "",
    ),
    Row(
        ORDERS + "ReadEvents",
        "from the future",
        RANGE,
        "POSITION_IN_FUTURE",
        lambda world: orders.ReadEventsRequest(after_position=10**6),
    ),
    Row(
        INVENTORY + "ReadEvents",
        "from the future",
        RANGE,
        "POSITION_IN_FUTURE",
        lambda world: inventory.ReadEventsRequest(after_position=10**6),
    ),
    Row(
        PAYMENTS + "ReadEvents",
        "from the future",
        RANGE,
        "POSITION_IN_FUTURE",
        lambda world: payments.ReadEventsRequest(after_position=10**6),
    ),
    Row(
        SHIPPING + "ReadEvents",
        "from the future",
        RANGE,
        "POSITION_IN_FUTURE",
        lambda world: shipping.ReadEventsRequest(after_position=10**6),
    ),
    Row(
        ORDERS + "ReadEvents",
        "from the end of time, to stay",
        RANGE,
        "POSITION_IN_FUTURE",
        lambda world: orders.ReadEventsRequest(after_position=2**63 - 1, follow=True),
    ),
    # Payments
    Row(
        PAYMENTS + "Charge",
        "unknown order, no card",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: _charge(ID, card=""),
        "order_id",
    ),
    Row(
        PAYMENTS + "Charge",
        "declined before",
        PRECONDITION,
        "CARD_DECLINED",
        lambda world: _charge(world.declined),
    ),
    Row(
        PAYMENTS + "Charge",
        "refunded",
        PRECONDITION,
        "PAYMENT_REFUNDED",
        lambda world: _charge(world.refunded),
    ),
    Row(
        PAYMENTS + "Charge",
        "other amount",
        PRECONDITION,
        "AMOUNT_CHANGED",
        lambda world: _charge(world.captured, euros(500)),
    ),
    Row(
        PAYMENTS + "Charge",
        "other currency",
        PRECONDITION,
        "AMOUNT_CHANGED",
        lambda world: _charge(world.captured, _DOLLARS),
    ),
    _reuse(PAYMENTS + "Charge", lambda world: _charge(ID)),
    Row(
        PAYMENTS + "GetPayment",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: payments.GetPaymentRequest(order_id=ID),
    ),
    # Shipping
    Row(
        SHIPPING + "CreateShipment",
        "not served",
        PRECONDITION,
        "NO_CARRIER",
        lambda world: _ship(world.not_served, "AQ"),
    ),
    Row(
        SHIPPING + "CreateShipment",
        "cancelled",
        PRECONDITION,
        "SHIPMENT_CANCELLED",
        lambda world: _ship(world.cancelled),
    ),
    _reuse(SHIPPING + "CreateShipment", lambda world: _ship(ID)),
    Row(
        SHIPPING + "GetShipment",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: shipping.GetShipmentRequest(order_id=ID),
    ),
    # The operator
    *_page_tokens(
        AUDIT + "ListAudit",
        {"target": ""},
        lambda token: audit.ListAuditRequest(page_token=token),
    ),
    *_page_tokens(
        TRACES + "ListSpans",
        {"trace_id": TRACE_ID},
        lambda token: trace.ListSpansRequest(trace_id=TRACE_ID, page_token=token),
    ),
    *(
        Row(
            MESH + "SetOverride",
            case,
            INVALID,
            "OVERRIDE_REFUSED",
            lambda world, wanted=wanted: _override(METHOD, wanted),  # type: ignore[misc]
            "override",
        )
        for case, wanted in _POLICIES.items()
    ),
    Row(
        MESH + "SetOverride",
        "below the floor",
        INVALID,
        "OVERRIDE_REFUSED",
        lambda world: _override(
            ORDERS + "CreateOrder", policy.MethodPolicy(timeout=Duration(seconds=1))
        ),
        "override",
    ),
    Row(
        MESH + "SetOverride",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: _override(UNKNOWN_METHOD, policy.MethodPolicy()),
    ),
    Row(
        MESH + "InjectFault",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: _fault(mesh.Fault(), UNKNOWN_METHOD),
    ),
    Row(
        MESH + "InjectFault",
        "no delay",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: _fault(mesh.Fault(delay_percent=1)),
        "fault.delay",
    ),
    Row(
        MESH + "InjectFault",
        "no code",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: _fault(mesh.Fault(abort_percent=1)),
        "fault.abort_code",
    ),
    *_page_tokens(
        SAGAS + "ListSagas",
        {"definition": "", "phase": "0", "min_age": "0.0"},
        lambda token: sagas.ListSagasRequest(page_token=token),
    ),
    Row(
        ANALYTICS + "GenerateReport",
        "a month that has not begun",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: analytics.GenerateReportRequest(month="2099-12", currency_code="EUR"),
        "month",
    ),
    _webhook("no https", "url", url="http://shop.example/"),
    _webhook("no URL", "url", url="shop.example"),
    _webhook("an address within", "url", url="https://169.254.169.254/latest/meta-data"),
    _webhook("no such event", "event_types[0]", event_types=["shop.orders.v1.OrderPlaced"]),
    _webhook("no such field", "condition", condition="event.nothing == 1"),
    _webhook("no boolean", "condition", condition="event.total"),
    _webhook("three loops", "condition", condition="[1].all(x, [1].all(y, [1].all(z, true)))"),
    _replay("backwards", 2, 1),
    _replay("the future", 1, 2**40),
    _of_no_webhook("GetWebhook", webhooks.GetWebhookRequest(webhook_id=ID)),
    _of_no_webhook("UpdateWebhook", webhooks.UpdateWebhookRequest(webhook_id=ID)),
    _of_no_webhook("DeleteWebhook", webhooks.DeleteWebhookRequest(webhook_id=ID)),
    _of_no_webhook("TestWebhook", webhooks.TestWebhookRequest(webhook_id=ID)),
    _of_no_webhook("ListDeliveries", webhooks.ListDeliveriesRequest(webhook_id=ID)),
    _of_no_webhook(
        "ReplayWebhook",
        webhooks.ReplayWebhookRequest(
            webhook_id=ID, since=Timestamp(seconds=1), until=Timestamp(seconds=2)
        ),
    ),
    *_page_tokens(
        WEBHOOKS + "ListWebhooks",
        {},
        lambda token: webhooks.ListWebhooksRequest(page_token=token),
    ),
    *_page_tokens(
        OPERATIONS + "ListOperations",
        {"state": "0"},
        lambda token: operation.ListOperationsRequest(page_token=token),
    ),
    *_of_no_operation("GetOperation", operation.GetOperationRequest(operation_id=ID)),
    *_of_no_operation("WatchOperation", operation.WatchOperationRequest(operation_id=ID)),
    *_of_no_operation("CancelOperation", operation.CancelOperationRequest(operation_id=ID)),
    *_page_tokens(
        WORK + "ListWork",
        {"state": "0", "queue": "", "min_age": "0.0"},
        lambda token: work.ListWorkRequest(page_token=token),
    ),
    Row(
        SAGAS + "GetSaga",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: sagas.GetSagaRequest(saga_id="a saga"),
    ),
    *_saga("RetrySaga", lambda saga_id: sagas.RetrySagaRequest(saga_id=saga_id, reason="r")),
    *_saga(
        "SkipStep",
        lambda saga_id: sagas.SkipStepRequest(saga_id=saga_id, reason="r", step="charge"),
    ),
    *_saga(
        "CompensateSaga",
        lambda saga_id: sagas.CompensateSagaRequest(saga_id=saga_id, reason="r"),
    ),
    *_saga("AbandonSaga", lambda saga_id: sagas.AbandonSagaRequest(saga_id=saga_id, reason="r")),
    Row(
        WORK + "GetWork",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: work.GetWorkRequest(work_id=ID),
    ),
    Row(
        WORK + "RetryWork",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: work.RetryWorkRequest(work_id=ID, reason="r"),
    ),
    Row(
        WORK + "DiscardWork",
        "unknown",
        NOT_FOUND,
        "NOT_FOUND",
        lambda world: work.DiscardWorkRequest(work_id=ID, reason="r"),
    ),
    # The outside world
    Row(
        CARDS + "Capture",
        "declined before",
        PRECONDITION,
        "CARD_DECLINED",
        lambda world: capture("declined"),
    ),
    Row(
        CARDS + "Capture",
        "reversed",
        PRECONDITION,
        "KEY_REVERSED",
        lambda world: capture("reversed"),
    ),
    Row(
        CARDS + "Capture",
        "other amount",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: capture("taken", 1),
        "key",
    ),
    Row(
        CARRIER + "BookParcel",
        "not served",
        PRECONDITION,
        "DESTINATION_NOT_SERVED",
        lambda world: parcel("not served"),
    ),
    Row(
        CARRIER + "BookParcel",
        "cancelled",
        PRECONDITION,
        "KEY_CANCELLED",
        lambda world: parcel("cancelled"),
    ),
    Row(
        CARRIER + "BookParcel",
        "other units",
        INVALID,
        "INVALID_ARGUMENT",
        lambda world: parcel("booked", 3),
        "key",
    ),
    Row(
        CARRIER + "CancelParcel",
        "handed over",
        PRECONDITION,
        "PARCEL_HANDED_OVER",
        lambda world: sandbox.CancelParcelRequest(key="handed over", reference="r"),
    ),
)
"""Calls that are refused and change nothing."""
