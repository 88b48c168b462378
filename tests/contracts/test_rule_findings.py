"""Mistakes seeded into the shop's contracts, one at a time: each is caught, at the right line."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from accord_checks.lint_rules.all_rules import LINT_RULES
from tests.contracts import written_contracts
from tests.contracts.written_contracts import Said
from tools.contracts import ROOT

CUSTOMERS = "shop/customers/v1/customers.proto"
EVENTS = "shop/orders/v1/events.proto"
INVENTORY = "shop/inventory/v1/inventory.proto"
NOTIFICATIONS = "shop/notifications/v1/notifications.proto"
ORDERS = "shop/orders/v1/orders.proto"
PAYMENTS = "shop/payments/v1/payments.proto"
SANDBOX = "shop/sandbox/v1/sandbox.proto"
SHIPPING = "shop/shipping/v1/shipping.proto"


def replace(path: Path, old: str, new: str) -> int:
    """Replace a text that is there once; where it was."""
    text = path.read_text()
    assert old in text, f"{path.name} has changed, adapt the mutation: {old!r}"
    path.write_text(text.replace(old, new, 1))
    return text.index(old)


@dataclass(frozen=True)
class Mutation:
    """A text that is replaced, and where the finding has to be."""

    rule: str
    file: str
    old: str
    new: str
    at: str
    """What stands there: the nearest line to the change that begins so."""
    found_in: str = ""
    """Where the finding is, if not in the file that was changed."""
    also: tuple[tuple[str, str, str], ...] = ()
    """Further texts that are replaced: file, old, new."""
    before: tuple[tuple[str, str, str], ...] = ()
    """Texts that are replaced in the version before, to have something to take away."""

    def apply(self, root: Path) -> int:
        """Seed it; the line that has to be named."""
        begin = 0
        for file, old, new in (*self.also, (self.file, self.old, self.new)):
            begin = replace(root / file, old, new)
        text = (root / (self.found_in or self.file)).read_text()
        changed = 0 if self.found_in else text.count("\n", 0, begin)
        first, *more = self.at.split("\n")
        lines = [line.strip() for line in text.splitlines()]
        named = [
            index
            for index, line in enumerate(lines)
            if line.startswith(first) and (not more or lines[index + 1].startswith(more[0].strip()))
        ]
        return min(named, key=lambda index: abs(index - changed)) + 1


GET_ORDER = """      timeout: {seconds: 2}
      cache: {"""
HEDGE = """      hedge: {
        percentile: 95
        min_delay: {nanos: 20000000}
      }
"""
OPERATORS = '      allow: ["spiffe://shop.internal/operator"]\n'
SUBMIT_ERRORS = """      errors: [
        "QUEUE_FULL",
        "UNKNOWN_CUSTOMER"
      ]
"""
KEY = "idempotency: {key: KEY_REQUIRED}"
KEY_POLICY = f"    option (accord.v1.policy) = {{\n      {KEY}"
NATURAL = "idempotency: {key: KEY_NATURAL}"
READS = "    option idempotency_level = NO_SIDE_EFFECTS;\n"
SAGA = "timeout: {seconds: 30}"
REFUND = 'method: "shop.payments.v1.PaymentService/Refund"'
CREATE_ORDER = "  rpc CreateOrder(CreateOrderRequest) returns (CreateOrderResponse) {\n"
CHARGE = "  rpc Charge(ChargeRequest) returns (ChargeResponse) {\n"
GET_CUSTOMER = """        method: "shop.customers.v1.CustomerService/GetCustomer"
        timeout: {seconds: 1}"""
RESERVE = """        method: "shop.inventory.v1.InventoryService/ReserveStock"
        timeout: {seconds: 3}"""
CAPTURE = """        method: "shop.sandbox.v1.CardProcessorService/Capture"
        timeout: {seconds: 8}"""
PAGE_TOKEN = "  string page_token = 2 [(buf.validate.field).string.max_len = 256]"
DEFAULTS = """    defaults: {
      timeout: {seconds: 5}"""
UUID = "[(buf.validate.field).string.uuid = true]"
# Every rule of the requests of notifications.
UNCHECKED = (
    (
        NOTIFICATIONS,
        "string notification_id = 1 [(buf.validate.field).string.uuid = true];\n  // When",
        "string notification_id = 1;\n  // When",
    ),
    (
        NOTIFICATIONS,
        " [\n    (buf.validate.field).required = true,\n    (buf.validate.field).cel = {\n"
        '      id: "sent_at.range"\n      message: "must not be before 1970"\n'
        '      expression: "this >= timestamp(0)"\n    }\n  ]',
        "",
    ),
    (NOTIFICATIONS, f" {UUID}", ""),
    (
        NOTIFICATIONS,
        " [(buf.validate.field) = {\n    ignore: IGNORE_IF_ZERO_VALUE\n    string: {uuid: true}\n"
        "  }]",
        "",
    ),
    (
        NOTIFICATIONS,
        " [(buf.validate.field).int32 = {\n    gte: 0\n    lte: 500\n  }]",
        "",
    ),
    (NOTIFICATIONS, " [(buf.validate.field).string.max_len = 256]", ""),
)
CHARGED = '          "shop.payments.v1.PaymentService/Charge",\n'
RATE = """        rate: {
          per_second: 100
          burst: 500
        }
"""
WRITE = 'scopes: ["orders:write"]'
ROUTE_OF_LIST = """    option (accord.v1.edge) = {
      get: "/v1/orders"
      scopes: ["orders:read"]
    };
"""
EDGE_LISTS = """          burst: 500
        }
      }
      allow: [
        "spiffe://shop.internal/accounting",
        "spiffe://shop.internal/console",
        "spiffe://shop.internal/edge",
"""
RATE_OF_CUSTOMERS = """      rate: {
        per_second: 1
        burst: 20
      }
"""
SHIPPED = '          "shop.shipping.v1.ShippingService/CreateShipment",\n'
TIMEOUT_60 = "timeout: {seconds: 60}"
FILL_CANCEL = """          field: "order_id"
          from: "response.order.order_id\""""

LINT_MUTATIONS = [
    # Policies.
    Mutation(
        "ACCORD_POLICY_STATED",
        SANDBOX,
        "// What an operator or a test may ask of the outside world.",
        "// New.\nservice BareService {\n  // New.\n  rpc SetBare(SetBehaviorRequest) returns "
        "(SetBehaviorResponse);\n}\n\n// What an operator or a test may ask.",
        "service BareService",
    ),
    Mutation("ACCORD_OWNER_STATED", PAYMENTS, '    owner: "team-payments"\n', "", "option (acc"),
    Mutation("ACCORD_OWNER_STATED", ORDERS, '"team-orders"', '" "', "option (accord.v1.service)"),
    Mutation("ACCORD_CALLERS_STATED", SANDBOX, OPERATORS, "", "option (accord.v1.s"),
    Mutation("ACCORD_CALLERS_VALID", PAYMENTS, '"spiffe://shop.internal/orders"', '"or"', "allow"),
    Mutation("ACCORD_CALLERS_VALID", PAYMENTS, "internal/orders", "internal/orders/", "allow"),
    Mutation(
        "ACCORD_CALLERS_VALID", ORDERS, OPERATORS, OPERATORS.replace('["', '["*", "'), "allow"
    ),
    Mutation("ACCORD_LISTED_ONCE", ORDERS, CHARGED, CHARGED + CHARGED, "steps"),
    Mutation(
        "ACCORD_LISTED_ONCE",
        ORDERS,
        "[STATUS_CODE_UNAVAILABLE]",
        "[STATUS_CODE_UNAVAILABLE, STATUS_CODE_UNAVAILABLE]",
        "codes",
    ),
    Mutation(
        "ACCORD_LISTED_ONCE",
        PAYMENTS,
        "        fill: {\n",
        '        fill: {field: "order_id" from: "request.order_id"}\n        fill: {\n',
        'fill: {\nfield: "order_id"',
    ),
    Mutation(
        "ACCORD_POLICY_VALID", ORDERS, "PRIORITY_CRITICAL}", "PRIORITY_CRITICAL rate: {}}", "limit"
    ),
    Mutation("ACCORD_POLICY_VALID", ORDERS, '"UNKNOWN_CUSTOMER",', '"unknown",', "errors"),
    Mutation("ACCORD_POLICY_VALID", ORDERS, GET_ORDER, "max_depth: 9\n" + GET_ORDER, "max_depth"),
    Mutation("ACCORD_POLICY_VALID", ORDERS, OPERATORS, '      allow: [""]\n', "allow"),
    Mutation("ACCORD_POLICY_VALID", ORDERS, "ttl: {seconds: 30}", "ttl: {nanos: -1}", "ttl"),
    Mutation(
        "ACCORD_POLICY_VALID",
        ORDERS,
        '        pivot: "shop.shipping.v1.ShippingService/CreateShipment"',
        '        pivot: "shop.shipping.v1.ShippingService/CancelShipment"',
        "pivot",
    ),
    Mutation(
        "ACCORD_FLOOR_KEPT",
        ORDERS,
        GET_ORDER,
        "floor: {timeout: {seconds: 3}}\n" + GET_ORDER,
        "floor",
    ),
    Mutation(
        "ACCORD_FLOOR_KEPT",
        ORDERS,
        GET_ORDER,
        "floor: {\nmax_attempts: 4\n}\n" + GET_ORDER,
        "max_attempts: 4",
    ),
    # Timeouts.
    Mutation(
        "ACCORD_TIMEOUT_STATED",
        SANDBOX,
        """      timeout: {seconds: 5}
      breaker: {}""",
        """      breaker: {}""",
        "rpc SetBehavior",
    ),
    Mutation(
        "ACCORD_TIMEOUT_STATED",
        INVENTORY,
        "        max_lifetime: {seconds: 600}\n",
        "",
        "rpc ListStock",
    ),
    Mutation(
        "ACCORD_TIMEOUT_VALID",
        ORDERS,
        "timeout: {seconds: 60}",
        "timeout: {seconds: 3601}",
        "timeout",
    ),
    Mutation("ACCORD_TIMEOUT_VALID", ORDERS, DEFAULTS, DEFAULTS.replace("5", "0"), "timeout"),
    Mutation(
        "ACCORD_TIMEOUT_VALID",
        ORDERS,
        "timeout: {seconds: 60}",
        "timeout: {seconds: 60}\nattempt_timeout: {\n  seconds: 61\n}",
        "seconds: 61",
    ),
    # Retries.
    Mutation("ACCORD_RETRY_BOUNDS", ORDERS, "max_attempts: 3", "max_attempts: 6", "max_attempts"),
    Mutation("ACCORD_RETRY_BOUNDS", ORDERS, "max_attempts: 3", "max_attempts: 1", "max_attempts"),
    Mutation("ACCORD_RETRY_BOUNDS", ORDERS, "{nanos: 100000000}", "{nanos: 0}", "initial_backoff"),
    Mutation("ACCORD_RETRY_BOUNDS", ORDERS, "{nanos: 100000000}", "{nanos: -1}", "initial_backoff"),
    Mutation("ACCORD_RETRY_BOUNDS", ORDERS, "{seconds: 10}", "{nanos: 1}", "max_backoff"),
    Mutation(
        "ACCORD_RETRY_BOUNDS",
        ORDERS,
        "STATUS_CODE_UNAVAILABLE",
        "STATUS_CODE_OK_UNSPECIFIED",
        "codes",
    ),
    Mutation("ACCORD_MUTATION_KEY", PAYMENTS, "      " + KEY + "\n", "", "rpc Charge"),
    Mutation("ACCORD_RETRY_IDEMPOTENT", CUSTOMERS, KEY, "retry: {max_attempts: 2}", "retry"),
    Mutation(
        "ACCORD_RETRY_IDEMPOTENT",
        ORDERS,
        "      limit: {priority: PRIORITY_CRITICAL}\n      " + KEY,
        "      limit: {priority: PRIORITY_CRITICAL}\n      hedge: {percentile: 95}",
        "hedge",
    ),
    Mutation(
        "ACCORD_RETRY_CODES",
        ORDERS,
        "[STATUS_CODE_UNAVAILABLE]",
        "[STATUS_CODE_UNAVAILABLE, STATUS_CODE_UNIMPLEMENTED]",
        "codes",
    ),
    Mutation("ACCORD_RETRY_FITS", ORDERS, "{nanos: 100000000}", "{seconds: 5}", "initial_backoff"),
    Mutation(
        "ACCORD_RETRY_FITS",
        ORDERS,
        GET_ORDER,
        GET_ORDER.replace("{seconds: 2}", "{nanos: 50000000}"),
        "timeout: {nanos: 50000000}",
    ),
    Mutation("ACCORD_RETRY_FITS", ORDERS, "{nanos: 20000000}", "{seconds: 2}", "min_delay"),
    # Idempotency.
    Mutation(
        "ACCORD_READS_ONLY",
        ORDERS,
        GET_ORDER,
        """calls: {
        method: "shop.customers.v1.CustomerService/CreateCustomer"
        timeout: {seconds: 1}
      }
"""
        + GET_ORDER,
        "calls",
    ),
    Mutation("ACCORD_READS_ONLY", ORDERS, CREATE_ORDER, CREATE_ORDER + READS, SAGA),
    Mutation("ACCORD_READS_ONLY", PAYMENTS, CHARGE, CHARGE + READS, REFUND),
    Mutation(
        "ACCORD_MUTATION_KEY", CUSTOMERS, KEY, "idempotency: {key: KEY_UNSPECIFIED}", "idempotency"
    ),
    Mutation(
        "ACCORD_MUTATION_KEY", NOTIFICATIONS, " {\n" + READS + "  }", ";", "rpc GetNotification"
    ),
    Mutation(
        "ACCORD_IDEMPOTENCY_AGREES",
        PAYMENTS,
        "    option idempotency_level = IDEMPOTENT;\n",
        "",
        "idempotency: ",
    ),
    Mutation("ACCORD_IDEMPOTENCY_AGREES", SANDBOX, NATURAL, KEY, "idempotency"),
    Mutation("ACCORD_IDEMPOTENCY_AGREES", ORDERS, GET_ORDER, KEY + "\n" + GET_ORDER, "idempotency"),
    # Compensations.
    Mutation(
        "ACCORD_COMPENSATION_EXISTS",
        PAYMENTS,
        '"shop.payments.v1.PaymentService/Refund"',
        '"shop.payments.v1.PaymentService/Reimburse"',
        "method",
    ),
    Mutation(
        "ACCORD_COMPENSATION_EXISTS",
        PAYMENTS,
        '"shop.payments.v1.PaymentService/Refund"',
        '"shop.payments.v1.PaymentService/Charge"',
        "method",
    ),
    Mutation(
        "ACCORD_COMPENSATION_FILLED",
        PAYMENTS,
        'from: "request.order_id"',
        'from: "request.order"',
        "fill",
    ),
    Mutation("ACCORD_COMPENSATION_FILLED", PAYMENTS, 'field: "order_id"', 'field: "order"', "fill"),
    Mutation(
        "ACCORD_COMPENSATION_FILLED",
        PAYMENTS,
        'from: "request.order_id"',
        'from: "request.amount"',
        "fill",
    ),
    Mutation(
        "ACCORD_COMPENSATION_FILLED",
        ORDERS,
        FILL_CANCEL,
        FILL_CANCEL.replace('field: "order_id"', 'field: "reason"'),
        "method",
    ),
    Mutation(
        "ACCORD_COMPENSATION_SAFE",
        PAYMENTS,
        '"shop.payments.v1.PaymentService/Refund"',
        '"shop.payments.v1.PaymentService/GetPayment"',
        "method",
    ),
    Mutation(
        "ACCORD_COMPENSATION_SAFE",
        SHIPPING,
        """    option idempotency_level = IDEMPOTENT;
    option (accord.v1.policy) = {
      idempotency: {key: KEY_NATURAL}""",
        "    option (accord.v1.policy) = {",
        'method: "shop.shipping.v1.ShippingService/CancelShipment"',
    ),
    # Sagas.
    Mutation("ACCORD_SAGA_STEPS", ORDERS, "PaymentService/Charge", "PaymentService/Pay", "steps"),
    Mutation(
        "ACCORD_SAGA_STEPS",
        ORDERS,
        '        pivot: "shop.shipping.v1.ShippingService/CreateShipment"\n',
        "",
        "steps",
    ),
    Mutation(
        "ACCORD_SAGA_FITS", ORDERS, "timeout: {seconds: 30}", "timeout: {seconds: 20}", "timeout"
    ),
    # Calls.
    Mutation(
        "ACCORD_CALL_EXISTS", ORDERS, "CustomerService/GetCustomer", "CustomerService/Get", "calls"
    ),
    Mutation("ACCORD_CALL_EXISTS", ORDERS, RESERVE, RESERVE.partition("\n")[0], "calls"),
    Mutation("ACCORD_CALLS_FIT", ORDERS, RESERVE, RESERVE.replace("3", "4"), "calls"),
    Mutation(
        "ACCORD_CALLS_FIT",
        PAYMENTS,
        "timeout: {seconds: 10}",
        "timeout: {seconds: 8}",
        'calls: {\n        method: "shop.sandbox',
    ),
    Mutation(
        "ACCORD_CALL_ROOM",
        CUSTOMERS,
        "      limit: {priority: PRIORITY_CRITICAL}",
        "      attempt_timeout: {seconds: 1 nanos: 500000000}",
        'calls: {\n        method: "shop.customers',
        found_in=ORDERS,
    ),
    Mutation("ACCORD_CALL_ROOM", PAYMENTS, CAPTURE, CAPTURE.replace("8", "9"), "calls"),
    Mutation(
        "ACCORD_CALL_DEPTH",
        ORDERS,
        GET_ORDER,
        "max_depth: 3\n" + GET_ORDER,
        "max_depth",
    ),
    Mutation(
        "ACCORD_CALL_DEPTH",
        INVENTORY,
        "      limit: {priority: PRIORITY_CRITICAL}",
        "      max_depth: 0\n      limit: {priority: PRIORITY_CRITICAL}",
        'calls: {\n        method: "shop.inventory',
        found_in=ORDERS,
    ),
    Mutation(
        "ACCORD_CALL_DEPTH",
        INVENTORY,
        """      timeout: {seconds: 2}
""",
        """      timeout: {seconds: 2}
      calls: {
        method: "shop.notifications.v1.NotificationService/GetNotification"
        timeout: {nanos: 200000000}
      }
""",
        "calls",
        also=(
            (
                CUSTOMERS,
                "      limit: {priority: PRIORITY_CRITICAL}",
                """      calls: {
        method: "shop.inventory.v1.InventoryService/GetStock"
        timeout: {nanos: 500000000}
      }""",
            ),
        ),
    ),
    Mutation(
        "ACCORD_CALL_CYCLE",
        CUSTOMERS,
        "      limit: {priority: PRIORITY_CRITICAL}",
        """      calls: {
        method: "shop.orders.v1.OrderService/CreateOrder"
        timeout: {seconds: 1}
      }""",
        "calls",
    ),
    # Streams.
    Mutation(
        "ACCORD_STREAM_RESUMABLE",
        CUSTOMERS,
        """      resume: {
        request_field: "after_number"
        response_field: "number"
      }
""",
        "",
        "rpc ListCustomers",
    ),
    Mutation("ACCORD_STREAM_RESUMABLE", SANDBOX, '"after_number"', '"reference"', "request_field"),
    Mutation(
        "ACCORD_STREAM_KEEPALIVE",
        ORDERS,
        "keepalive: {seconds: 30}",
        "keepalive: {seconds: 91}",
        "keepalive",
    ),
    Mutation(
        "ACCORD_STREAM_KEEPALIVE",
        CUSTOMERS,
        "idle: {seconds: 90}\n        keepalive: {seconds: 30}",
        "idle: {seconds: 20}",
        "idle",
    ),
    Mutation(
        "ACCORD_OPTION_EFFECTIVE",
        ORDERS,
        GET_ORDER,
        "stream: {idle: {seconds: 60}}\n" + GET_ORDER,
        "stream",
    ),
    Mutation(
        "ACCORD_OPTION_EFFECTIVE",
        ORDERS,
        TIMEOUT_60,
        TIMEOUT_60 + "\nretry: {max_attempts: 2}",
        "retry",
    ),
    Mutation(
        "ACCORD_OPTION_EFFECTIVE",
        CUSTOMERS,
        "      stream: {",
        "      attempt_timeout: {seconds: 1}\n      stream: {",
        "attempt_timeout",
    ),
    Mutation(
        "ACCORD_OPTION_EFFECTIVE",
        CUSTOMERS,
        "      stream: {",
        "      hedge: {percentile: 90}\n      stream: {",
        "hedge: {percentile: 90}",
    ),
    # Events.
    Mutation(
        "ACCORD_EVENT_DECLARED",
        EVENTS,
        """  option (accord.v1.event) = {
    subject: "orders.order.paid"
    version: 1
    key: "order_id"
  };
""",
        "",
        "message OrderPaid",
    ),
    Mutation("ACCORD_EVENT_VALID", EVENTS, "version: 1", "version: 0", "version"),
    Mutation("ACCORD_EVENT_VALID", EVENTS, '    key: "order_id"\n', "", "option (accord"),
    Mutation("ACCORD_EVENT_VALID", EVENTS, 'key: "order_id"', 'key: "items"', "key"),
    Mutation("ACCORD_EVENT_VALID", EVENTS, "  string order_id", "  bytes order_id", "key"),
    Mutation("ACCORD_EVENT_VALID", EVENTS, '"orders.order.placed"', '"Orders placed"', "subject"),
    Mutation("ACCORD_EVENT_SUBJECT_UNIQUE", EVENTS, "order.note_added", "order.paid", "subject"),
    # Caches.
    Mutation(
        "ACCORD_CACHE_READS",
        CUSTOMERS,
        "    option idempotency_level = NO_SIDE_EFFECTS;",
        "    option idempotency_level = IDEMPOTENT;",
        "ttl",
    ),
    Mutation(
        "ACCORD_CACHE_INVALIDATED",
        ORDERS,
        '"shop.orders.v1.OrderService/CreateOrder",',
        '"shop.orders.v1.OrderService/Create",',
        "invalidated_by",
    ),
    Mutation(
        "ACCORD_CACHE_INVALIDATED",
        CUSTOMERS,
        'invalidated_by: ["shop.customers.v1.CustomerService/CreateCustomer"]',
        "",
        "ttl",
    ),
    # Routes.
    Mutation("ACCORD_ROUTE_VALID", ORDERS, "{order_id}/updates", "{id}/updates", "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, "{order_id}/updates", "{order_id}/../up", "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, "{order_id}/updates", "{order_id/updates", "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, "{order_id}/updates", "{order_id}/{order_id}", "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, '"/v1/orders/{order_id}"', '"v1"', "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, '      get: "/v1/orders"\n', "", "option (accord.v1.e"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, 'post: "/v1/orders"', 'get: "/v1/orders/a"', "get"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, 'post: "/v1/orders"', 'post: "/v1/{items}"', "post"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, WRITE, WRITE.replace('"]', ' "]'), "scopes"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, WRITE, WRITE.replace('"]', '", "orders:write"]'), "sc"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, WRITE, "", "option (accord.v1.edge)\npost"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, WRITE, WRITE + "\npublic: true", "public"),
    Mutation("ACCORD_ROUTE_VALID", ORDERS, "        per_second: 5\n", "per_second: -1\n", "per_s"),
    Mutation(
        "ACCORD_ROUTE_VALID",
        ORDERS,
        f"    option (accord.v1.policy) = {{\n      {TIMEOUT_60}",
        f"option (accord.v1.edge) = {{post: '/v1/b' public: true}};\n"
        f"    option (accord.v1.policy) = {{\n      {TIMEOUT_60}",
        "option (accord.v1.edge)",
    ),
    Mutation("ACCORD_ROUTE_UNIQUE", ORDERS, "{order_id}/updates", "{order_id}", "get"),
    Mutation(
        "ACCORD_ROUTE_UNIQUE",
        INVENTORY,
        '"/v1/products/{sku}"',
        '"/v1/customers/{sku}"',
        "get",
    ),
    Mutation(
        "ACCORD_ROUTE_QUERY",
        ORDERS,
        PAGE_TOKEN,
        "  // Which.\n  OrderItem item = 9;\n" + PAGE_TOKEN,
        'get: "/v1/orders"',
    ),
    Mutation(
        "ACCORD_ROUTE_CALLER",
        ORDERS,
        EDGE_LISTS,
        EDGE_LISTS.replace('        "spiffe://shop.internal/edge",\n', ""),
        "allow",
    ),
    Mutation("ACCORD_ROUTE_RATE", CUSTOMERS, RATE_OF_CUSTOMERS, "", "public"),
    # Limits.
    Mutation(
        "ACCORD_FIELD_LIMITED",
        ORDERS,
        "string page_token = 2 [(buf.validate.field).string.max_len = 256]",
        "string page_token = 2",
        "string page_token",
    ),
    Mutation(
        "ACCORD_FIELD_LIMITED",
        ORDERS,
        PAGE_TOKEN,
        "  // Tags.\n  map<string, int32> tags = 9;\n" + PAGE_TOKEN,
        "map<string, int32> tags",
    ),
    Mutation(
        "ACCORD_FIELD_LIMITED",
        ORDERS,
        PAGE_TOKEN,
        "  // Tags.\n  map<int32, string> tags = 9 [(buf.validate.field).map.max_pairs = 9];\n"
        + PAGE_TOKEN,
        "map<int32, string> tags",
    ),
    Mutation(
        "ACCORD_FIELD_LIMITED", INVENTORY, "      max_items: 100\n", "", "repeated ReserveLine"
    ),
    Mutation(
        "ACCORD_FIELD_LIMITED",
        "shop/common/v1/address.proto",
        "    max_len: 200\n",
        "",
        "string name",
    ),
    Mutation(
        "ACCORD_LIST_PAGED",
        ORDERS,
        "string next_page_token = 2;",
        "string rest = 2;",
        "rpc ListOrders",
    ),
]

PAID = """    subject: "orders.order.paid"
    version: 1
    key: "order_id\""""

STATED = """  option (accord.v1.service) = {
    owner: "team-notifications"
    defaults: {
      timeout: {seconds: 2}
      retry: {
        max_attempts: 3
        initial_backoff: {nanos: 100000000}
        max_backoff: {seconds: 10}
        codes: [STATUS_CODE_UNAVAILABLE]
      }
      limit: {priority: PRIORITY_SHEDDABLE}
      breaker: {}
      max_depth: 2
      allow: [
        "spiffe://shop.internal/console",
        "spiffe://shop.internal/edge",
        "spiffe://shop.internal/operator"
      ]
    }
  };
"""

CHANGES = [
    # Times.
    Mutation("POLICY_TIMEOUT_SHORTENED", ORDERS, TIMEOUT_60, "timeout: {seconds: 59}", "timeout"),
    Mutation(
        "POLICY_TIMEOUT_SHORTENED", INVENTORY, DEFAULTS, DEFAULTS.replace("5", "4"), "timeout"
    ),
    Mutation("POLICY_TIMEOUT_SHORTENED", ORDERS, GET_ORDER, GET_ORDER.replace("2", "1"), "timeout"),
    Mutation("POLICY_TIMEOUT_LENGTHENED", ORDERS, TIMEOUT_60, "timeout: {seconds: 90}", "timeout"),
    Mutation(
        "POLICY_TIMEOUT_SHORTENED",
        ORDERS,
        TIMEOUT_60,
        TIMEOUT_60 + "\nattempt_timeout: {seconds: 9}",
        "attempt_timeout",
    ),
    Mutation(
        "POLICY_ATTEMPT_TIMEOUT_CHANGED",
        ORDERS,
        TIMEOUT_60,
        TIMEOUT_60 + "\nattempt_timeout: {seconds: 9}",
        "attempt_timeout",
        before=((ORDERS, TIMEOUT_60, TIMEOUT_60 + "\nattempt_timeout: {seconds: 8}"),),
    ),
    Mutation(
        "POLICY_STREAM_SHORTENED",
        ORDERS,
        "max_lifetime: {seconds: 3600}",
        "max_lifetime: {seconds: 60}",
        "max_lifetime",
    ),
    Mutation(
        "POLICY_STREAM_SHORTENED", ORDERS, "idle: {seconds: 90}", "idle: {seconds: 40}", "idle"
    ),
    Mutation(
        "POLICY_STREAM_CHANGED",
        INVENTORY,
        "max_lifetime: {seconds: 600}",
        "max_lifetime: {seconds: 900}",
        "max_lifetime",
    ),
    Mutation(
        "POLICY_STREAM_CHANGED",
        ORDERS,
        "keepalive: {seconds: 30}",
        "keepalive: {seconds: 31}",
        "keepalive",
    ),
    # Attempts.
    Mutation(
        "POLICY_RETRY_REMOVED",
        NOTIFICATIONS,
        """      retry: {
        max_attempts: 3
        initial_backoff: {nanos: 100000000}
        max_backoff: {seconds: 10}
        codes: [STATUS_CODE_UNAVAILABLE]
      }
""",
        "",
        "option (accord.v1.service)",
    ),
    Mutation("POLICY_RETRY_REMOVED", ORDERS, "max_attempts: 3", "max_attempts: 2", "max_attempts"),
    Mutation("POLICY_RETRY_CHANGED", ORDERS, "max_attempts: 3", "max_attempts: 4", "max_attempts"),
    Mutation(
        "POLICY_RETRY_CHANGED",
        ORDERS,
        "[STATUS_CODE_UNAVAILABLE]",
        "[STATUS_CODE_UNAVAILABLE, STATUS_CODE_ABORTED]",
        "codes",
    ),
    Mutation(
        "POLICY_RETRY_CHANGED",
        SANDBOX,
        "timeout: {seconds: 5}",
        "timeout: {seconds: 5}\nretry: {max_attempts: 2}",
        "retry",
    ),
    Mutation("POLICY_HEDGE_CHANGED", ORDERS, "percentile: 95", "percentile: 90", "percentile"),
    Mutation("POLICY_HEDGE_CHANGED", ORDERS, "{nanos: 20000000}", "{nanos: 1000000}", "min_delay"),
    Mutation("POLICY_HEDGE_CHANGED", ORDERS, HEDGE, "", "rpc GetOrder"),
    Mutation(
        "POLICY_BREAKER_CHANGED", ORDERS, GET_ORDER, "breaker: {probes: 2}\n" + GET_ORDER, "breaker"
    ),
    # Access.
    Mutation(
        "POLICY_CALLER_REMOVED",
        ORDERS,
        OPERATORS,
        OPERATORS.replace("operator", "edge"),
        "allow",
    ),
    Mutation("POLICY_CALLER_REMOVED", PAYMENTS, "internal/orders", "internal/order", "allow"),
    Mutation(
        "POLICY_CALLER_ADDED",
        ORDERS,
        'allow: ["spiffe://shop.internal/payments"]',
        'allow: ["spiffe://shop.internal/payments", "spiffe://shop.internal/mail"]',
        "allow",
    ),
    Mutation(
        "POLICY_CALLERS_OPENED",
        PAYMENTS,
        'allow: ["spiffe://shop.internal/orders"]',
        'allow: ["spiffe://shop.internal/orders", "spiffe://shop.internal/mail"]',
        "allow",
    ),
    Mutation(
        "POLICY_CALLERS_OPENED",
        ORDERS,
        'allow: ["spiffe://shop.internal/payments"]',
        'allow: ["spiffe://shop.internal/payments", "spiffe://other.internal/mail"]',
        "allow",
    ),
    Mutation(
        "POLICY_CALLERS_OPENED",
        PAYMENTS,
        'allow: ["spiffe://shop.internal/orders"]',
        'allow: ["*"]',
        "allow",
    ),
    Mutation(
        "POLICY_CALLERS_OPENED",
        PAYMENTS,
        '      allow: ["spiffe://shop.internal/orders"]\n',
        "",
        "option (accord.v1.service)",
    ),
    Mutation(
        "POLICY_CALLERS_OPENED",
        ORDERS,
        '      allow: ["spiffe://shop.internal/payments"]\n',
        "",
        "rpc GetPaymentInstruction",
    ),
    Mutation("POLICY_LIMIT_CHANGED", PAYMENTS, "PRIORITY_CRITICAL", "PRIORITY_SHEDDABLE", "limit"),
    Mutation(
        "POLICY_LIMIT_CHANGED",
        PAYMENTS,
        "PRIORITY_CRITICAL}",
        "PRIORITY_CRITICAL rate: {per_second: 9}}",
        "limit",
    ),
    Mutation(
        "POLICY_LIMIT_CHANGED",
        PAYMENTS,
        "PRIORITY_CRITICAL}",
        "PRIORITY_CRITICAL max_concurrent: 9}",
        "limit",
    ),
    Mutation("POLICY_LIMIT_LOWERED", ORDERS, "per_second: 100", "per_second: 99", "per_second"),
    Mutation(
        "POLICY_PRIORITY_RAISED",
        SANDBOX,
        "PRIORITY_SHEDDABLE",
        "PRIORITY_DEFAULT",
        "limit",
    ),
    Mutation("POLICY_DEPTH_LOWERED", ORDERS, GET_ORDER, "max_depth: 1\n" + GET_ORDER, "max_depth"),
    Mutation("POLICY_DEPTH_RAISED", ORDERS, GET_ORDER, "max_depth: 3\n" + GET_ORDER, "max_depth"),
    Mutation("POLICY_BOUND_REMOVED", ORDERS, RATE, "", "priority"),
    Mutation("POLICY_BOUND_REMOVED", PAYMENTS, "      max_depth: 2\n", "", "option (accord.v1.s"),
    Mutation("POLICY_BOUND_REMOVED", CUSTOMERS, "      breaker: {}\n", "", "option (accord.v1.s"),
    Mutation("POLICY_BOUND_REMOVED", CUSTOMERS, "      limit: {}\n", "", "option (accord.v1.s"),
    Mutation(
        "POLICY_BOUND_REMOVED", INVENTORY, DEFAULTS, "    defaults: {", "option (accord.v1.service)"
    ),
    Mutation("POLICY_BOUND_REMOVED", ORDERS, "        max_lifetime: {seconds: 3600}\n", "", "idle"),
    Mutation(
        "POLICY_FLOOR_LOWERED",
        PAYMENTS,
        """      floor: {
        timeout: {seconds: 9}
        max_attempts: 2
      }
""",
        "",
        "rpc Charge",
    ),
    Mutation("POLICY_FLOOR_LOWERED", PAYMENTS, "max_attempts: 2\n", "\n", "timeout: {seconds: 9}"),
    Mutation(
        "POLICY_FLOOR_LOWERED",
        ORDERS,
        "",
        "",
        "rpc GetOrder",
        before=((ORDERS, GET_ORDER, "floor: {timeout: {seconds: 1}}\n" + GET_ORDER),),
    ),
    # Safety.
    Mutation("POLICY_IDEMPOTENCY_WEAKENED", ORDERS, READS, "", "rpc GetOrder"),
    Mutation(
        "POLICY_IDEMPOTENCY_WEAKENED",
        CUSTOMERS,
        KEY,
        "idempotency: {key: KEY_UNSPECIFIED}",
        "idempotency",
    ),
    Mutation("POLICY_IDEMPOTENCY_WEAKENED", CUSTOMERS, KEY, NATURAL, "idempotency"),
    Mutation(
        "POLICY_IDEMPOTENCY_WEAKENED",
        CUSTOMERS,
        f"    option (accord.v1.policy) = {{\n      {KEY}",
        "    option idempotency_level = IDEMPOTENT;\n    option (accord.v1.policy) = {",
        "rpc CreateCustomer",
    ),
    Mutation(
        "POLICY_IDEMPOTENCY_WEAKENED",
        CUSTOMERS,
        f"    option (accord.v1.policy) = {{\n      {KEY}",
        f"{READS}    option (accord.v1.policy) = {{",
        "rpc CreateCustomer",
    ),
    Mutation("POLICY_IDEMPOTENCY_WEAKENED", SANDBOX, NATURAL, "", "rpc Capture"),
    Mutation("POLICY_KEY_REQUIRED", SANDBOX, NATURAL, KEY, "idempotency"),
    Mutation(
        "POLICY_COMPENSATION_CHANGED",
        PAYMENTS,
        """      compensation: {
        method: "shop.payments.v1.PaymentService/Refund"
        fill: {
          field: "order_id"
          from: "request.order_id"
        }
      }
""",
        "",
        "rpc Charge",
    ),
    Mutation(
        "POLICY_COMPENSATION_CHANGED",
        PAYMENTS,
        "PaymentService/Refund",
        "PaymentService/GetPayment",
        "method",
    ),
    Mutation("POLICY_SAGA_STEPS_CHANGED", ORDERS, CHARGED, "", "steps"),
    Mutation("POLICY_SAGA_STEPS_CHANGED", ORDERS, CHARGED + SHIPPED, SHIPPED + CHARGED, "steps"),
    Mutation(
        "POLICY_SAGA_STEPS_CHANGED",
        ORDERS,
        '        pivot: "shop.shipping.v1.ShippingService/CreateShipment"',
        '        pivot: "shop.payments.v1.PaymentService/Charge"',
        "pivot",
    ),
    Mutation(
        "POLICY_SAGA_CHANGED", ORDERS, "timeout: {seconds: 30}", "timeout: {seconds: 29}", "timeout"
    ),
    Mutation(
        "POLICY_RESUME_CHANGED",
        CUSTOMERS,
        """      resume: {
        request_field: "after_number"
        response_field: "number"
      }
""",
        "",
        "rpc ListCustomers",
    ),
    Mutation("POLICY_ERROR_REMOVED", ORDERS, SUBMIT_ERRORS, "", "rpc SubmitOrder"),
    Mutation("POLICY_ERROR_REMOVED", ORDERS, '"TOO_LATE",', '"TOO_EARLY",', "errors"),
    Mutation(
        "POLICY_ERROR_ADDED",
        ORDERS,
        '"QUEUE_FULL",',
        '"QUEUE_FULL", "ODD",',
        "errors",
    ),
    # Work.
    Mutation(
        "POLICY_CALLS_CHANGED", ORDERS, GET_CUSTOMER, GET_CUSTOMER.replace("1}", "2}"), "calls"
    ),
    Mutation(
        "POLICY_CALLS_CHANGED",
        ORDERS,
        GET_ORDER,
        """calls: {
        method: "shop.customers.v1.CustomerService/GetCustomer"
        timeout: {seconds: 1}
      }
"""
        + GET_ORDER,
        "calls",
    ),
    Mutation("POLICY_CACHE_CHANGED", ORDERS, "ttl: {seconds: 30}", "ttl: {seconds: 31}", "ttl"),
    Mutation("POLICY_CACHE_STALE", ORDERS, "ttl: {seconds: 30}", "ttl: {seconds: 301}", "ttl"),
    Mutation(
        "POLICY_CACHE_STALE",
        ORDERS,
        '          "shop.orders.v1.OrderService/CreateOrder",\n',
        "",
        "invalidated_by",
    ),
    # Routes.
    Mutation("POLICY_ROUTE_REMOVED", ORDERS, ROUTE_OF_LIST, "", "rpc ListOrders"),
    Mutation("POLICY_ROUTE_CHANGED", ORDERS, "order_id}:cancel", "order_id}:stop", "post"),
    Mutation("POLICY_ROUTE_CHANGED", ORDERS, 'post: "/v1/orders/', 'put: "/v1/orders/', "put"),
    Mutation(
        "POLICY_ROUTE_ADDED",
        ORDERS,
        "",
        "",
        'get: "/v1/orders"',
        before=((ORDERS, ROUTE_OF_LIST, ""),),
    ),
    Mutation("POLICY_SCOPE_ADDED", ORDERS, WRITE, 'scopes: ["orders:write", "vip"]', "scopes"),
    Mutation("POLICY_SCOPE_ADDED", CUSTOMERS, "public: true", WRITE, "scopes"),
    Mutation("POLICY_SCOPE_REMOVED", ORDERS, WRITE, "public: true", "public"),
    Mutation("POLICY_SCOPE_REMOVED", ORDERS, "orders:write", "orders:read", "scopes"),
    Mutation("POLICY_ROUTE_RATE_LOWERED", ORDERS, "per_second: 5", "per_second: 4", "per_second"),
    Mutation("POLICY_BOUND_REMOVED", CUSTOMERS, RATE_OF_CUSTOMERS, "", "option (accord.v1.edge)"),
    Mutation("POLICY_BOUND_REMOVED", ORDERS, "burst: 50\n", "burst: 501\n", "burst"),
    # Requests.
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        ORDERS,
        PAGE_TOKEN,
        PAGE_TOKEN.replace("256", "128"),
        "string page_token",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        ORDERS,
        PAGE_TOKEN,
        PAGE_TOKEN.replace(".string.max_len = 256", ' = {string: {max_len: 256 pattern: "^a"}}'),
        "string page_token",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        ORDERS,
        PAGE_TOKEN,
        PAGE_TOKEN.replace(".string.max_len = 256", " = {required: true string: {max_len: 256}}"),
        "string page_token",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        ORDERS,
        PAGE_TOKEN,
        "  // New.\n  string view = 9 [(buf.validate.field).required = true];\n" + PAGE_TOKEN,
        "string view",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        INVENTORY,
        "      max_items: 100\n",
        "      max_items: 50\n",
        "repeated ReserveLine",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED",
        "shop/common/v1/address.proto",
        "    max_len: 200\n",
        "    max_len: 199\n",
        "string name",
    ),
    Mutation(
        "POLICY_VALIDATION_TIGHTENED", ORDERS, "size(this) > 100", "size(this) > 99", "repeated"
    ),
    Mutation("POLICY_VALIDATION_LOOSENED", ORDERS, "max_len = 256", "max_len = 512", "string p"),
    Mutation(
        "POLICY_VALIDATION_LOOSENED",
        ORDERS,
        " [(buf.validate.field).required = true]",
        "",
        "shop.common.v1.Address ship_to",
    ),
    Mutation(
        "POLICY_VALIDATION_REMOVED",
        ORDERS,
        PAGE_TOKEN,
        "  string page_token = 2",
        "string page_token",
    ),
    Mutation(
        "POLICY_VALIDATION_REMOVED",
        NOTIFICATIONS,
        'import "buf/validate/validate.proto";\n',
        "",
        "string notification_id = 1;\n}",
        also=UNCHECKED,
    ),
    # Services.
    Mutation("POLICY_REMOVED", NOTIFICATIONS, STATED, "", "service NotificationService"),
    Mutation(
        "POLICY_BEGUN",
        NOTIFICATIONS,
        "",
        "",
        "option (accord.v1.service)",
        before=((NOTIFICATIONS, STATED, ""),),
    ),
    Mutation(
        "POLICY_DEPRECATION_REMOVED",
        CUSTOMERS,
        "",
        "",
        "rpc CreateCustomer",
        before=((CUSTOMERS, KEY_POLICY, f"    option deprecated = true;\n{KEY_POLICY}"),),
    ),
    # Events.
    Mutation(
        "POLICY_EVENT_REMOVED",
        EVENTS,
        "  option (accord.v1.event) = {\n" + PAID + "\n  };\n",
        "",
        "message OrderPaid",
    ),
    Mutation(
        "POLICY_EVENT_SUBJECT_CHANGED",
        EVENTS,
        "orders.order.paid",
        "orders.order.settled",
        "subject",
    ),
    Mutation(
        "POLICY_EVENT_KEY_CHANGED", EVENTS, PAID, PAID.replace("order_id", "payment_id"), "key"
    ),
    Mutation(
        "POLICY_EVENT_VERSION_LOWERED",
        EVENTS,
        PAID,
        PAID,
        "version",
        before=((EVENTS, PAID, PAID.replace("1", "2")),),
    ),
    Mutation("POLICY_EVENT_VERSION_RAISED", EVENTS, PAID, PAID.replace("1", "2"), "version"),
    Mutation(
        "POLICY_EVENT_FIELD_REMOVED",
        EVENTS,
        "  // The payment.\n  string payment_id = 2;\n",
        "  reserved 2;\n",
        "message OrderPaid",
    ),
    Mutation(
        "POLICY_EVENT_FIELD_REMOVED",
        ORDERS,
        "string detail = 2",
        "bytes detail = 2",
        "message OrderRejected",
        found_in=EVENTS,
    ),
]


CONFIGURATION = """version: v2
lint:
  use: [STANDARD, COMMENTS, ACCORD]
  ignore: [accord/xds, buf]
  ignore_only: {ACCORD_FIELD_LIMITED: [accord/v1/policy.proto]}
breaking:
  use: [POLICY_STRICT]
plugins:
  - plugin: buf-plugin-accord
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's contracts, as they are."""
    root = tmp_path_factory.mktemp("clean") / "protos"
    shutil.copytree(ROOT / "protos", root)
    (root / "buf.yaml").write_text(CONFIGURATION)
    return root


def _seed(mutation: Mutation, clean: Path, work: Path) -> tuple[int, Path, Path | None]:
    """The line that has to be named, the mutant, and for a change the version before it."""
    mutant = shutil.copytree(clean, work / "mutant")
    line = mutation.apply(mutant)
    if mutation in LINT_MUTATIONS:
        return line, mutant, None
    against = clean
    if mutation.before:
        against = shutil.copytree(clean, work / "against")
        for file, old, new in mutation.before:
            replace(against / file, old, new)
    return line, mutant, against


def _says(mutation: Mutation, line: int, found: Sequence[Said]) -> None:
    wanted = (mutation.rule, mutation.found_in or mutation.file, line)
    assert wanted in [(said.rule, said.file, said.line) for said in found], "\n".join(
        [str(wanted), *(f"{said.file}:{said.line}: {said.rule} {said.message}" for said in found)]
    )


@pytest.mark.parametrize("mutation", [*LINT_MUTATIONS, *CHANGES], ids=lambda m: m.rule)
def test_a_mistake_is_caught_at_the_right_line(
    mutation: Mutation, clean: Path, tmp_path: Path
) -> None:
    """The plugin names the rule, the file and the line of each seeded mistake."""
    line, mutant, against = _seed(mutation, clean, tmp_path)
    _says(mutation, line, written_contracts.annotated(mutant, against))


@pytest.mark.parametrize("mutation", [*LINT_MUTATIONS, *CHANGES][::16], ids=lambda m: m.rule)
def test_buf_shows_what_the_plugin_says(mutation: Mutation, clean: Path, tmp_path: Path) -> None:
    """`buf lint` and `buf breaking` name the same rule, file and line, on some of the mistakes."""
    line, mutant, against = _seed(mutation, clean, tmp_path)
    command = ("lint",) if against is None else ("breaking", "--against", str(against))
    _says(mutation, line, written_contracts.findings(mutant, *command))


GATE = {rule.id for rule in BREAKING_RULES if "POLICY" in rule.categories}
REFUSED = [mutation for mutation in CHANGES if mutation.rule in GATE]


def _accept(said: Said, root: Path) -> None:
    """Write the line that ends a finding above its RPC, service or message, with a reason."""
    file = root / said.file
    lines = file.read_text().splitlines()
    at = max(said.line - 1, 0)
    while lines[at].lstrip().startswith("//"):  # another finding of the same line has been accepted
        at += 1
    while at and not lines[at].lstrip().startswith(("rpc ", "service ", "message ")):
        at -= 1
    line = said.message.partition("or accept it: `")[2].removesuffix("<why>`")
    lines.insert(at, f"{line}everybody has agreed")
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("mutation", REFUSED, ids=lambda m: m.rule)
def test_a_change_is_accepted_by_the_line_that_ends_its_finding(
    mutation: Mutation, clean: Path, tmp_path: Path
) -> None:
    """Whatever the default gate refuses passes with a reason in the contract, and only so."""
    _, mutant, against = _seed(mutation, clean, tmp_path)
    found = [said for said in written_contracts.annotated(mutant, against) if said.rule in GATE]
    for said in sorted(found, key=lambda said: -said.line):
        _accept(said, mutant)
    left = [said for said in written_contracts.annotated(mutant, against) if said.rule in GATE]
    assert left == []


def test_clean_contracts_have_no_finding(clean: Path) -> None:
    """Nothing is found in the shop's contracts, nor between them and themselves."""
    assert written_contracts.findings(clean, "lint") == []
    assert written_contracts.findings(clean, "breaking", "--against", str(clean)) == []


def test_every_rule_has_a_mutation() -> None:
    """Every rule has one; there are 110 at least, and the default gate refuses 40 changes."""
    assert {mutation.rule for mutation in LINT_MUTATIONS} == {rule.id for rule in LINT_RULES}
    assert {mutation.rule for mutation in CHANGES} == {rule.id for rule in BREAKING_RULES}
    assert len(LINT_MUTATIONS) + len(CHANGES) >= 110
    assert len(REFUSED) >= 40
