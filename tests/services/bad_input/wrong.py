"""The first table: for every RPC, values that its contract does not allow.

Each stands for a request that is good but for one field. What is wrong with a field of its kind
anywhere - too long, not UTF-8, an enum value that nobody knows - is not listed: it is made from the
contracts (everywhere.py).
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.ops.v1 import audit_pb2 as audit
from accord.ops.v1 import health_pb2 as health
from accord.ops.v1 import mesh_pb2 as mesh
from accord.ops.v1 import operation_pb2 as operation
from accord.ops.v1 import saga_pb2 as sagas
from accord.ops.v1 import trace_pb2 as trace
from accord.ops.v1 import work_pb2 as work
from accord.v1 import policy_pb2 as policy
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
from tests.services.bad_input.world import capture, parcel
from tests.support.shop import address, euros

ID: Final = "0197f000-0000-7000-8000-000000000000"
"""An id that nothing has."""

_ITEM: Final = orders.OrderItem(sku="tea", quantity=1, unit_price=euros(499))
_LINE: Final = inventory.ReserveLine(sku="tea", quantity=1, unit_price=euros(499))
_PARCEL_LINE: Final = shipping.ParcelLine(sku="tea", quantity=1)
_POLICY: Final = policy.MethodPolicy(
    timeout=Duration(seconds=5),
    retry=policy.Retry(max_attempts=2, codes=[policy.STATUS_CODE_UNAVAILABLE]),
)
_FAULT: Final = mesh.Fault(
    delay=Duration(nanos=1),
    delay_percent=1,
    abort_code=policy.STATUS_CODE_ABORTED,
    abort_percent=1,
    guarded=True,
)
_TIME: Final = Timestamp(seconds=1_800_000_000)
_DOLLARS: Final = Money(minor_units=499, currency_code="USD")

_FILTER: Final = work.WorkFilter(queue="saga", work_ids=[ID])

TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"

GOOD: Final[Mapping[str, Message]] = {
    "accord.ops.v1.AuditService/ListAudit": audit.ListAuditRequest(target=ID),
    "accord.ops.v1.HealthService/GetHealth": health.GetHealthRequest(),
    "accord.ops.v1.TraceService/FindTraces": trace.FindTracesRequest(key=ID),
    "accord.ops.v1.TraceService/ListSpans": trace.ListSpansRequest(trace_id=TRACE_ID),
    "accord.ops.v1.TraceService/ListFlows": trace.ListFlowsRequest(name="Charge"),
    "accord.ops.v1.MeshService/WatchState": mesh.WatchStateRequest(interval=Duration(seconds=1)),
    "accord.ops.v1.MeshService/ListMethods": mesh.ListMethodsRequest(method_prefix="shop."),
    "accord.ops.v1.MeshService/GetState": mesh.GetStateRequest(method_prefix="shop."),
    "accord.ops.v1.MeshService/SetOverride": mesh.SetOverrideRequest(
        method=METHOD,
        override=mesh.Override(
            policy=_POLICY,
            dark=[mesh.DARK_POLICY_BREAKER],
            shadow=mesh.Shadow(target="next", percent=1),
        ),
        reason="a test",
    ),
    "accord.ops.v1.MeshService/ClearOverride": mesh.ClearOverrideRequest(
        method=METHOD, reason="a test"
    ),
    "accord.ops.v1.MeshService/ClearFault": mesh.ClearFaultRequest(method=METHOD, reason="a test"),
    "accord.ops.v1.MeshService/InjectFault": mesh.InjectFaultRequest(
        method=METHOD, fault=_FAULT, lasting=Duration(seconds=1), reason="a test"
    ),
    "accord.ops.v1.OperationService/GetOperation": operation.GetOperationRequest(operation_id=ID),
    "accord.ops.v1.OperationService/ListOperations": operation.ListOperationsRequest(
        state=operation.OPERATION_STATE_FAILED
    ),
    "accord.ops.v1.OperationService/WatchOperation": operation.WatchOperationRequest(
        operation_id=ID
    ),
    "accord.ops.v1.OperationService/CancelOperation": operation.CancelOperationRequest(
        operation_id=ID
    ),
    "accord.ops.v1.SagaService/ListSagas": sagas.ListSagasRequest(definition="order"),
    "accord.ops.v1.SagaService/GetSagaCounts": sagas.GetSagaCountsRequest(
        ended_within=Duration(seconds=60)
    ),
    "accord.ops.v1.SagaService/GetSaga": sagas.GetSagaRequest(saga_id=ID),
    "accord.ops.v1.SagaService/RetrySaga": sagas.RetrySagaRequest(saga_id=ID, reason="a test"),
    "accord.ops.v1.SagaService/SkipStep": sagas.SkipStepRequest(
        saga_id=ID, reason="a test", step="charge"
    ),
    "accord.ops.v1.SagaService/CompensateSaga": sagas.CompensateSagaRequest(
        saga_id=ID, reason="a test"
    ),
    "accord.ops.v1.SagaService/AbandonSaga": sagas.AbandonSagaRequest(saga_id=ID, reason="a test"),
    "accord.ops.v1.WorkService/GetQueues": work.GetQueuesRequest(),
    "accord.ops.v1.WorkService/ListWork": work.ListWorkRequest(queue="saga"),
    "accord.ops.v1.WorkService/GetWork": work.GetWorkRequest(work_id=ID),
    "accord.ops.v1.WorkService/RetryWork": work.RetryWorkRequest(work_id=ID, reason="a test"),
    "accord.ops.v1.WorkService/DiscardWork": work.DiscardWorkRequest(work_id=ID, reason="a test"),
    "accord.ops.v1.WorkService/RetryWorkMatching": work.RetryWorkMatchingRequest(
        filter=_FILTER, reason="a test"
    ),
    "accord.ops.v1.WorkService/DiscardWorkMatching": work.DiscardWorkMatchingRequest(
        filter=_FILTER, reason="a test"
    ),
    "shop.accounting.v1.AccountingService/GetTrialBalance": accounting.GetTrialBalanceRequest(
        as_of=_TIME
    ),
    "shop.accounting.v1.AccountingService/GetAccount": accounting.GetAccountRequest(
        account=accounting.ACCOUNT_REVENUE, as_of=_TIME
    ),
    "shop.accounting.v1.AccountingService/ListTransactions": accounting.ListTransactionsRequest(
        order_id=ID
    ),
    "shop.accounting.v1.AccountingService/Reconcile": accounting.ReconcileRequest(page_size=1),
    "shop.analytics.v1.AnalyticsService/QueryMetrics": analytics.QueryMetricsRequest(
        dimension=analytics.DIMENSION_DAY, start_time=_TIME, end_time=_TIME
    ),
    "shop.analytics.v1.AnalyticsService/WatchMetrics": analytics.WatchMetricsRequest(
        dimension=analytics.DIMENSION_DAY, start_time=_TIME, end_time=_TIME
    ),
    "shop.analytics.v1.AnalyticsService/GenerateReport": analytics.GenerateReportRequest(
        month="2026-01", currency_code="EUR"
    ),
    "shop.analytics.v1.AnalyticsService/ListViews": analytics.ListViewsRequest(),
    "shop.analytics.v1.AnalyticsService/GetView": analytics.GetViewRequest(name="sales"),
    "shop.analytics.v1.AnalyticsService/RebuildView": analytics.RebuildViewRequest(name="sales"),
    "shop.customers.v1.CustomerService/CreateCustomer": customers.CreateCustomerRequest(
        name="Bob", email="bob@example.com", address=address()
    ),
    "shop.customers.v1.CustomerService/GetCustomer": customers.GetCustomerRequest(customer_id=ID),
    "shop.customers.v1.CustomerService/BatchGetCustomers": customers.BatchGetCustomersRequest(
        customer_ids=[ID]
    ),
    "shop.customers.v1.CustomerService/ListCustomers": customers.ListCustomersRequest(),
    "shop.inventory.v1.InventoryService/UpsertProduct": inventory.UpsertProductRequest(
        sku="pot", name="Pot", price=euros(1999), on_hand=5
    ),
    "shop.inventory.v1.InventoryService/ReserveStock": inventory.ReserveStockRequest(
        order_id=ID, lines=[_LINE]
    ),
    "shop.inventory.v1.InventoryService/ReleaseStock": inventory.ReleaseStockRequest(order_id=ID),
    "shop.inventory.v1.InventoryService/CommitStock": inventory.CommitStockRequest(order_id=ID),
    "shop.inventory.v1.InventoryService/GetStock": inventory.GetStockRequest(sku="nothing"),
    "shop.inventory.v1.InventoryService/BatchGetStock": inventory.BatchGetStockRequest(
        skus=["nothing"]
    ),
    "shop.inventory.v1.InventoryService/ListStock": inventory.ListStockRequest(after_sku="a"),
    "shop.inventory.v1.InventoryService/ReadEvents": inventory.ReadEventsRequest(),
    "shop.notifications.v1.NotificationService/GetNotification": (
        notifications.GetNotificationRequest(notification_id=ID)
    ),
    "shop.notifications.v1.NotificationService/ListNotifications": (
        notifications.ListNotificationsRequest(order_id=ID)
    ),
    "shop.notifications.v1.NotificationService/RecordSent": notifications.RecordSentRequest(
        notification_id=ID, sent_at=Timestamp(seconds=1)
    ),
    "shop.notifications.v1.WebhookService/CreateWebhook": webhooks.CreateWebhookRequest(
        url="https://shop.example/hook",
        event_types=["shop.orders.v1.OrderConfirmed"],
        condition="event.total.minor_units > 0",
    ),
    "shop.notifications.v1.WebhookService/GetWebhook": webhooks.GetWebhookRequest(webhook_id=ID),
    "shop.notifications.v1.WebhookService/ListWebhooks": webhooks.ListWebhooksRequest(),
    "shop.notifications.v1.WebhookService/UpdateWebhook": webhooks.UpdateWebhookRequest(
        webhook_id=ID, state=webhooks.WEBHOOK_STATE_PAUSED
    ),
    "shop.notifications.v1.WebhookService/DeleteWebhook": webhooks.DeleteWebhookRequest(
        webhook_id=ID
    ),
    "shop.notifications.v1.WebhookService/TestWebhook": webhooks.TestWebhookRequest(webhook_id=ID),
    "shop.notifications.v1.WebhookService/ReplayWebhook": webhooks.ReplayWebhookRequest(
        webhook_id=ID, since=Timestamp(seconds=1), until=Timestamp(seconds=2)
    ),
    "shop.notifications.v1.WebhookService/ListDeliveries": webhooks.ListDeliveriesRequest(
        webhook_id=ID, state=webhooks.DELIVERY_STATE_WAITING
    ),
    "shop.orders.v1.OrderService/CreateOrder": orders.CreateOrderRequest(
        customer_id=ID, items=[_ITEM], card_token="tok_visa", ship_to=address()
    ),
    "shop.orders.v1.OrderService/SubmitOrder": orders.SubmitOrderRequest(
        order=orders.CreateOrderRequest(
            customer_id=ID, items=[_ITEM], card_token="tok_visa", ship_to=address()
        )
    ),
    "shop.orders.v1.OrderService/GetOrder": orders.GetOrderRequest(order_id=ID),
    "shop.orders.v1.OrderService/GetPaymentInstruction": orders.GetPaymentInstructionRequest(
        order_id=ID
    ),
    "shop.orders.v1.OrderService/ListOrders": orders.ListOrdersRequest(customer_id=ID),
    "shop.orders.v1.OrderService/CancelOrder": orders.CancelOrderRequest(
        order_id=ID, reason="changed my mind"
    ),
    "shop.orders.v1.OrderService/StreamOrderUpdates": orders.StreamOrderUpdatesRequest(order_id=ID),
    "shop.orders.v1.OrderService/BulkUpdateOrders": orders.BulkUpdateOrdersRequest(
        order_id=ID, add_note="called twice"
    ),
    "shop.orders.v1.OrderService/TrackOrders": orders.TrackOrdersRequest(
        add=orders.StreamOrderUpdatesRequest(order_id=ID)
    ),
    "shop.orders.v1.OrderService/ReadEvents": orders.ReadEventsRequest(),
    "shop.payments.v1.PaymentService/Charge": payments.ChargeRequest(
        order_id=ID, amount=euros(499), card_token="tok_visa"
    ),
    "shop.payments.v1.PaymentService/Refund": payments.RefundRequest(order_id=ID),
    "shop.payments.v1.PaymentService/GetPayment": payments.GetPaymentRequest(order_id=ID),
    "shop.payments.v1.PaymentService/ReadEvents": payments.ReadEventsRequest(),
    "shop.sandbox.v1.CardProcessorService/Capture": capture("new"),
    "shop.sandbox.v1.CardProcessorService/Reverse": sandbox.ReverseRequest(
        key="new", reference="r"
    ),
    "shop.sandbox.v1.CarrierService/BookParcel": parcel("new"),
    "shop.sandbox.v1.CarrierService/CancelParcel": sandbox.CancelParcelRequest(
        key="new", reference="r"
    ),
    "shop.sandbox.v1.SandboxService/SetBehavior": sandbox.SetBehaviorRequest(
        party=sandbox.PARTY_CARRIER, behavior=sandbox.BEHAVIOR_NORMAL
    ),
    "shop.sandbox.v1.SandboxService/ReadLedger": sandbox.ReadLedgerRequest(),
    "shop.shipping.v1.ShippingService/CreateShipment": shipping.CreateShipmentRequest(
        order_id=ID, ship_to=address(), lines=[_PARCEL_LINE]
    ),
    "shop.shipping.v1.ShippingService/CancelShipment": shipping.CancelShipmentRequest(order_id=ID),
    "shop.shipping.v1.ShippingService/GetShipment": shipping.GetShipmentRequest(order_id=ID),
    "shop.shipping.v1.ShippingService/BatchGetShipments": shipping.BatchGetShipmentsRequest(
        order_ids=[ID]
    ),
    "shop.shipping.v1.ShippingService/ReadEvents": shipping.ReadEventsRequest(),
}
"""A request of every RPC that its contract allows."""


def _values(field: str, *values: Any) -> list[tuple[str, Any]]:
    return [(field, value) for value in values]


def _id(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "1", "null", ID[:-1], ID + "0", "{" + ID[1:-1] + "}", ID[:-1] + "g")


def _name(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "x" * 201, "two\nlines")


def _reason(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "x" * 501, "two\nlines")


def _method(field: str) -> list[tuple[str, Any]]:
    long = f"shop.{'x' * 300}/Get"
    return _values(
        field, "", "Get", "a.B/", "/Get", "/a.B/Get", "a.B/Get/it", "a..B/Get", "a.B /Get", long
    )


def _percent(field: str) -> list[tuple[str, Any]]:
    return _values(field, -1, 101, 2**31 - 1)


def _age(field: str) -> list[tuple[str, Any]]:
    tomorrow, long_ago = Duration(seconds=-86400), Duration(seconds=315360001)
    return _values(field, tomorrow, long_ago, Duration(seconds=2**63 - 1))


def _key(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "x" * 129, "two\nlines")


def _sku(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "x" * 65, "-tea", "green tea", "tea\n", "té", "'; DROP TABLE x;--")


def _quantity(field: str) -> list[tuple[str, Any]]:
    return _values(field, 0, -1, 10_001, 2**31 - 1, -(2**31))


def _position(field: str) -> list[tuple[str, Any]]:
    return _values(field, -1, -(2**63))


def _page(field: str) -> list[tuple[str, Any]]:
    return _values(field, -1, 501, 2**31 - 1)


def _money(field: str, *, most: int = 10**17) -> list[tuple[str, Any]]:
    return [
        (field, None),
        *_values(f"{field}.minor_units", -1, 10**17 + 1, 2**63 - 1, -(2**63)),
        *_values(f"{field}.currency_code", "", "EU", "eur", "XXX", "EURO", "BTC", "EUR "),
        *(_values(field, euros(most + 1)) if most < 10**17 else ()),
    ]


def _positive(field: str) -> list[tuple[str, Any]]:
    return _values(field, euros(0))


def _card(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "4111111111111111", "tok_", "tok_" + "x" * 61, "tok_a b", "TOK_a")


def _address(field: str) -> list[tuple[str, Any]]:
    return [
        *_values(f"{field}.name", "", "x" * 201, "a\nb"),
        *_values(f"{field}.line1", "", "x" * 201, "a\rb"),
        *_values(f"{field}.line2", "x" * 201, "a\tb"),
        *_values(f"{field}.city", "", "x" * 101, "a\x7fb"),
        *_values(f"{field}.postal_code", "x" * 21, "\x00"),
        *_values(f"{field}.country_code", "", "D", "de", "DEU", "49", "ÄÖ"),
    ]


def _list(field: str, item: Any) -> list[tuple[str, Any]]:
    def numbered(number: int) -> Any:
        other = type(item)()
        other.CopyFrom(item)
        other.sku = f"sku{number}"
        return other

    return _values(field, [], [item, item], [numbered(number) for number in range(101)])


def _ids(field: str) -> list[tuple[str, Any]]:
    many = [str(uuid.UUID(int=number)) for number in range(101)]
    return _values(field, [], [ID, ID], many)


def _time(field: str) -> list[tuple[str, Any]]:
    before, after = Timestamp(seconds=946_684_799), Timestamp(seconds=4_102_444_800)
    return _values(field, before, after, Timestamp(seconds=-1), Timestamp(seconds=253402300799))


def _view(field: str) -> list[tuple[str, Any]]:
    return _values(field, "", "Sales", "1st", "x" * 65, "a b", "sales\n", "'; DROP TABLE x;--")


_MOST: Final = 10**11
"""The highest price of one unit, in minor units."""

_MATCHING: Final[list[tuple[str, Any]]] = [
    *_values("filter", None),
    *_values("filter.state", work.WORK_STATE_LEASED, 4, -1),
    *_name("filter.queue")[1:],
    *_age("filter.min_age"),
    *_values("filter.work_ids", [ID] * 201),
    *_reason("reason"),
    *_values("page_size", -1, 201),
    *_values("page_token", "x" * 513),
]
_RECORD: Final = [*_position("after_position"), ("types", ["a"] * 101)]
_ORDER: Final[list[tuple[str, Any]]] = [
    *_id("customer_id"),
    *_list("items", _ITEM),
    *_values("items", [_ITEM, orders.OrderItem(sku="pot", quantity=1, unit_price=_DOLLARS)]),
    *_sku("items[0].sku"),
    *_quantity("items[0].quantity"),
    *_money("items[0].unit_price", most=_MOST),
    *_positive("items[0].unit_price"),
    *_card("card_token"),
    *_values("ship_to", None),
    *_address("ship_to"),
    *_values("fulfilment", 3, -1),
]

WRONG: Final[Mapping[str, list[tuple[str, Any]]]] = {
    "accord.ops.v1.AuditService/ListAudit": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
        *_name("target")[1:],
    ],
    "accord.ops.v1.HealthService/GetHealth": [],
    "accord.ops.v1.TraceService/FindTraces": _name("key"),
    "accord.ops.v1.TraceService/ListSpans": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
        *_values("trace_id", "", TRACE_ID[1:], TRACE_ID + "0", TRACE_ID.upper(), "x" * 32),
    ],
    "accord.ops.v1.TraceService/ListFlows": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
        *_name("name")[1:],
        *_age("min_duration"),
        *_age("max_age"),
    ],
    "accord.ops.v1.MeshService/GetState": _values("method_prefix", "x" * 301, "a b", "ü", "a*"),
    "accord.ops.v1.MeshService/WatchState": _values(
        "interval", Duration(), Duration(seconds=-1), Duration(seconds=61)
    ),
    "accord.ops.v1.MeshService/ListMethods": [
        *_page("page_size"),
        *_values("page_token", "x" * 513),
        *_values("method_prefix", "x" * 301, "a b", "ü", "a*"),
    ],
    "accord.ops.v1.MeshService/SetOverride": [
        *_method("method"),
        *_values("override", None),
        *_values("override.shadow.percent", 0, 101),
        *_values("override.shadow.target", ""),
        *_values("override.dark", [mesh.DARK_POLICY_BREAKER] * 9),
        *_reason("reason"),
    ],
    "accord.ops.v1.MeshService/ClearOverride": [*_method("method"), *_reason("reason")],
    "accord.ops.v1.MeshService/ClearFault": [*_method("method"), *_reason("reason")],
    "accord.ops.v1.MeshService/InjectFault": [
        *_method("method"),
        *_values("fault", None),
        *_values("fault.delay", Duration(seconds=-1), Duration(seconds=600, nanos=1)),
        *_percent("fault.delay_percent"),
        *_percent("fault.abort_percent"),
        *_values("fault.abort_code", 17, -1),
        *_values("lasting", None, Duration(), Duration(seconds=-1), Duration(seconds=3601)),
        *_reason("reason"),
    ],
    "accord.ops.v1.OperationService/GetOperation": _id("operation_id"),
    "accord.ops.v1.OperationService/ListOperations": _page("page_size"),
    "accord.ops.v1.OperationService/WatchOperation": [
        *_id("operation_id"),
        *_position("after_sequence"),
    ],
    "accord.ops.v1.OperationService/CancelOperation": _id("operation_id"),
    "accord.ops.v1.SagaService/ListSagas": [
        *_page("page_size"),
        *_values("page_token", "x" * 513),
        *_name("definition")[1:],
        *_values("phase", 6, -1),
        *_age("min_age"),
        *_age("max_age"),
        *_values("work_state", 4, -1),
    ],
    "accord.ops.v1.SagaService/GetSagaCounts": _age("ended_within"),
    "accord.ops.v1.SagaService/GetSaga": _name("saga_id"),
    "accord.ops.v1.SagaService/RetrySaga": [*_name("saga_id"), *_reason("reason")],
    "accord.ops.v1.SagaService/SkipStep": [*_name("saga_id"), *_reason("reason"), *_name("step")],
    "accord.ops.v1.SagaService/CompensateSaga": [*_name("saga_id"), *_reason("reason")],
    "accord.ops.v1.SagaService/AbandonSaga": [*_name("saga_id"), *_reason("reason")],
    "accord.ops.v1.WorkService/GetQueues": [],
    "accord.ops.v1.WorkService/ListWork": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
        *_values("state", 4, -1),
        *_name("queue")[1:],
        *_age("min_age"),
    ],
    "accord.ops.v1.WorkService/GetWork": _id("work_id"),
    "accord.ops.v1.WorkService/RetryWork": [*_id("work_id"), *_reason("reason")],
    "accord.ops.v1.WorkService/DiscardWork": [*_id("work_id"), *_reason("reason")],
    "accord.ops.v1.WorkService/RetryWorkMatching": [*_MATCHING, *_values("per_second", -1, 1001)],
    "accord.ops.v1.WorkService/DiscardWorkMatching": _MATCHING,
    "shop.accounting.v1.AccountingService/GetTrialBalance": _time("as_of"),
    "shop.accounting.v1.AccountingService/GetAccount": [
        *_values("account", 0, 5, -1),
        *_time("as_of"),
    ],
    "shop.accounting.v1.AccountingService/ListTransactions": [
        *_id("order_id")[1:],
        *_page("page_size"),
        *_values("page_token", "x" * 257),
    ],
    "shop.accounting.v1.AccountingService/Reconcile": [
        *_values("page_size", -1, 101, 2**31 - 1),
        *_values("page_token", "x" * 257),
    ],
    "shop.analytics.v1.AnalyticsService/QueryMetrics": [
        *_values("dimension", 0, 6, -1),
        *_time("start_time"),
        *_time("end_time"),
        *_page("page_size"),
        *_values("page_token", "x" * 257),
    ],
    "shop.analytics.v1.AnalyticsService/WatchMetrics": [
        *_values("dimension", 0, 6, -1),
        *_time("start_time"),
        *_time("end_time"),
        *_position("after_revision"),
    ],
    "shop.analytics.v1.AnalyticsService/GenerateReport": [
        *_values("month", "", "2026", "2026-13", "2026-00", "1999-01", "2026-01\n", "2026-1"),
        *_values("currency_code", "", "eur", "EURO", "E\u00dcR"),
    ],
    "shop.analytics.v1.AnalyticsService/ListViews": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
    ],
    "shop.analytics.v1.AnalyticsService/GetView": _view("name"),
    "shop.analytics.v1.AnalyticsService/RebuildView": _view("name"),
    "shop.customers.v1.CustomerService/CreateCustomer": [
        *_values("name", "", "x" * 201, "two\nlines", "\x00"),
        *_values("email", "", "ada", "@example.com", "ada@", "ada@@example.com", "a b@example.com"),
        *_values("email", "a@b.c\r\nBcc: all@example.com", "x" * 251 + "@b.c", "Ada <ada@b.c>"),
        *_address("address"),
    ],
    "shop.customers.v1.CustomerService/GetCustomer": _id("customer_id"),
    "shop.customers.v1.CustomerService/BatchGetCustomers": _ids("customer_ids"),
    "shop.customers.v1.CustomerService/ListCustomers": _position("after_number"),
    "shop.inventory.v1.InventoryService/UpsertProduct": [
        *_sku("sku"),
        *_values("name", "", "x" * 201, "a\x00b"),
        *_money("price", most=_MOST),
        *_positive("price"),
        *_values("on_hand", -1, 10**9 + 1, 2**63 - 1, -(2**63)),
    ],
    "shop.inventory.v1.InventoryService/ReserveStock": [
        *_id("order_id"),
        *_list("lines", _LINE),
        *_sku("lines[0].sku"),
        *_quantity("lines[0].quantity"),
        *_money("lines[0].unit_price"),
    ],
    "shop.inventory.v1.InventoryService/ReleaseStock": _id("order_id"),
    "shop.inventory.v1.InventoryService/CommitStock": _id("order_id"),
    "shop.inventory.v1.InventoryService/GetStock": _sku("sku"),
    "shop.inventory.v1.InventoryService/BatchGetStock": _values(
        "skus", [], ["tea", "tea"], [f"sku{number}" for number in range(101)]
    ),
    "shop.inventory.v1.InventoryService/ListStock": _sku("after_sku")[1:],
    "shop.inventory.v1.InventoryService/ReadEvents": _RECORD,
    "shop.notifications.v1.NotificationService/GetNotification": _id("notification_id"),
    "shop.notifications.v1.NotificationService/ListNotifications": [
        *_id("order_id")[1:],
        *_page("page_size"),
        *_values("page_token", "x" * 257),
    ],
    "shop.notifications.v1.WebhookService/CreateWebhook": [
        *_values("url", "", "x" * 2001, "https://x.example/a b", "https://\u00e9.example/"),
        *_values("event_types", [], ["shop.orders.v1.OrderPaid"] * 2),
        *_values("condition", "x" * 501, "two\nlines"),
    ],
    "shop.notifications.v1.WebhookService/GetWebhook": _id("webhook_id"),
    "shop.notifications.v1.WebhookService/ListWebhooks": _page("page_size"),
    "shop.notifications.v1.WebhookService/UpdateWebhook": [
        *_id("webhook_id"),
        ("state", webhooks.WEBHOOK_STATE_OFF),
    ],
    "shop.notifications.v1.WebhookService/DeleteWebhook": _id("webhook_id"),
    "shop.notifications.v1.WebhookService/TestWebhook": _id("webhook_id"),
    "shop.notifications.v1.WebhookService/ReplayWebhook": [
        *_id("webhook_id"),
        *_values("since", None),
        *_values("until", None),
    ],
    "shop.notifications.v1.WebhookService/ListDeliveries": [
        *_id("webhook_id"),
        *_page("page_size"),
    ],
    "shop.notifications.v1.NotificationService/RecordSent": [
        *_id("notification_id"),
        *_values("sent_at", None),
    ],
    "shop.orders.v1.OrderService/CreateOrder": _ORDER,
    "shop.orders.v1.OrderService/SubmitOrder": [
        *_values("order", None),
        *((f"order.{name}", value) for name, value in _ORDER),
    ],
    "shop.orders.v1.OrderService/GetOrder": [
        *_id("order_id"),
        *_values("at_sequence", 0, -1),
        *_values("at_time", Timestamp(seconds=-1)),
    ],
    "shop.orders.v1.OrderService/GetPaymentInstruction": _id("order_id"),
    "shop.orders.v1.OrderService/ListOrders": [
        *_page("page_size"),
        *_values("page_token", "x" * 257),
        *_id("customer_id")[1:],
        *_values("status", 11, -1),
    ],
    "shop.orders.v1.OrderService/CancelOrder": [
        *_id("order_id"),
        *_values("reason", "x" * 501, "a\x00b"),
    ],
    "shop.orders.v1.OrderService/StreamOrderUpdates": [
        *_id("order_id"),
        *_position("after_sequence"),
    ],
    "shop.orders.v1.OrderService/BulkUpdateOrders": [
        *_id("order_id"),
        *_values("cancel_reason", "x" * 501, "a\x00b"),
        *_values("add_note", "", "x" * 501, "a\x00b"),
    ],
    "shop.orders.v1.OrderService/TrackOrders": [
        *_id("add.order_id"),
        *_position("add.after_sequence"),
        *_id("remove"),
    ],
    "shop.orders.v1.OrderService/ReadEvents": _RECORD,
    "shop.payments.v1.PaymentService/Charge": [
        *_id("order_id"),
        *_money("amount"),
        *_positive("amount"),
        *(wrong for wrong in _card("card_token") if wrong[1]),
    ],
    "shop.payments.v1.PaymentService/Refund": _id("order_id"),
    "shop.payments.v1.PaymentService/GetPayment": _id("order_id"),
    "shop.payments.v1.PaymentService/ReadEvents": _RECORD,
    "shop.sandbox.v1.CardProcessorService/Capture": [
        *_key("key"),
        *_key("reference"),
        *_money("amount"),
        *_card("card_token"),
    ],
    "shop.sandbox.v1.CardProcessorService/Reverse": [*_key("key"), *_key("reference")],
    "shop.sandbox.v1.CarrierService/BookParcel": [
        *_key("key"),
        *_key("reference"),
        *_values("ship_to", None),
        *_address("ship_to"),
        *_values("units", 0, -1, 1_000_001, 2**63 - 1),
    ],
    "shop.sandbox.v1.CarrierService/CancelParcel": [*_key("key"), *_key("reference")],
    "shop.sandbox.v1.SandboxService/SetBehavior": [
        *_values("party", 0, 3, -1),
        *_values("behavior", 0, 7, -1),
        *_values("calls", -1, 1_000_001),
        *_values("delay", Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=60, nanos=1)),
        *_values("delay", Duration(seconds=2**63 - 1), Duration(seconds=-(2**63))),
    ],
    "shop.sandbox.v1.SandboxService/ReadLedger": [
        *_position("after_number"),
        *_key("reference")[1:],
    ],
    "shop.shipping.v1.ShippingService/CreateShipment": [
        *_id("order_id"),
        *_values("ship_to", None),
        *_address("ship_to"),
        *_list("lines", _PARCEL_LINE),
        *_sku("lines[0].sku"),
        *_quantity("lines[0].quantity"),
    ],
    "shop.shipping.v1.ShippingService/CancelShipment": _id("order_id"),
    "shop.shipping.v1.ShippingService/GetShipment": _id("order_id"),
    "shop.shipping.v1.ShippingService/BatchGetShipments": _ids("order_ids"),
    "shop.shipping.v1.ShippingService/ReadEvents": _RECORD,
}
"""RPC -> (field, value that is refused); None leaves a field out."""
