"""The page *Orders*: the newest, and of one all that happened to it, and where it waited."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc

from accord.ops.v1 import saga_pb2, trace_pb2
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from accord_runtime.telemetry.trace_tree import STATUS, Line, Recorded, milliseconds, summary, tree
from services.console import formatting as fmt
from services.console.html import Child, Html, el, facts, join, table, url
from services.console.page import Live, Page, choice, first
from services.console.services import Services
from services.console.watch import said_of
from services.console.waterfall import Bar, waterfall
from services.console.work_page import number_of
from shop.common.v1.fulfilment_pb2 import Fulfilment
from shop.notifications.v1 import notifications_pb2
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

ORDERS: Final = "orders"
STATUSES: Final = {
    fmt.name(name, "ORDER_STATUS_"): number for name, number in orders_pb2.OrderStatus.items()
}
MAX_SPANS: Final = 500
"""Calls of one order that are shown, of each service."""
TRACES: Final = 10
"""Traces of one order that are shown."""

_STATUS: Final[Mapping[int, str]] = {number: name for name, number in STATUSES.items()}
_KINDS: Final = {
    "confirmed": "good",
    "rejected": "bad",
    "failed": "bad",
    "cancelled": "bad",
    "undoing": "warn",
}
_ENDED: Final = frozenset({"confirmed", "rejected", "failed", "cancelled"})
_FAILURES: Final[Mapping[int, str]] = {
    number: fmt.name(name, "FAILURE_REASON_") for name, number in orders_pb2.FailureReason.items()
}


async def listing(services: Services, given: Mapping[str, list[str]]) -> Page:
    """The newest orders, live."""
    status = number_of(given, "status", STATUSES, "unspecified")
    request = orders_pb2.ListOrdersRequest(status=status)  # type: ignore[arg-type]
    try:
        answer: Any = await services.read(ORDERS, OrderServiceStub, "ListOrders", request)
        shown = table(
            "Orders, newest first", _HEADS, map(_row, answer.orders), "No order is like this."
        )
    except grpc.RpcError as error:
        shown = _away(error)
    words = {name: "any" if name == "unspecified" else name for name in STATUSES}
    filters = choice("Status", "status", words, first(given, "status", "unspecified"))
    parts = (
        el(
            "form",
            filters,
            el("button", "Filter"),
            action=url("orders"),
            class_="filter",
            role="search",
        ),
        Live("orders", shown),
    )
    return Page("Orders", "orders", parts)


_HEADS: Final = ("Order", "Placed", "Status", "Total", "Items", "Customer", "Why")


def _row(order: orders_pb2.Order) -> list[Child]:
    return [
        el("a", order.order_id, href=url("orders", order.order_id)),
        fmt.when(order.created_at),
        _status(order.status),
        fmt.money(order.total),
        ", ".join(f"{item.quantity} x {item.sku}" for item in order.items),
        order.customer_id,
        _failure(order),
    ]


def _status_word(number: int) -> str:
    return _STATUS.get(number, str(number))


def _status(number: int) -> Html:
    word = _status_word(number)
    return fmt.state(word, _KINDS.get(word, "idle"))


def _failure(order: orders_pb2.Order) -> str:
    if not order.HasField("failure"):
        return ""
    return f"{_FAILURES.get(order.failure.reason, '')}: {order.failure.detail}".removesuffix(": ")


def _away(error: grpc.RpcError) -> Html:
    return el("p", fmt.state(f"orders does not answer: {said_of(error)}", "bad"), class_="problem")


async def order(services: Services, order_id: str) -> Page:
    """One order: what it is, its events, steps and mails, and all calls for it. Raises RpcError."""
    request = orders_pb2.GetOrderRequest(order_id=order_id)
    found = (await services.read(ORDERS, OrderServiceStub, "GetOrder", request)).order
    events, saga, mails, (lines, silent) = await asyncio.gather(
        _events(services, found),
        _saga(services, order_id),
        _mails(services, order_id),
        _calls(services, order_id),
    )
    bars = sorted(
        [*_event_bars(events), *_saga_bars(saga), *_mail_bars(mails)], key=lambda bar: bar.end
    )
    calls = [_call_bar(line) for line in lines]
    every = [*bars, *calls]
    begin = min((bar.start - bar.waited for bar in every), default=0)
    end = max((bar.end for bar in every), default=1)
    gone = (
        el(
            "p",
            f"No answer from {', '.join(silent)}: what they did is not shown.",
            class_="problem",
        )
        if silent
        else None
    )
    about = facts(
        status=_status(found.status),
        why=_failure(found),
        total=fmt.money(found.total),
        items=", ".join(f"{item.quantity} x {item.sku}" for item in found.items),
        customer=found.customer_id,
        placed=fmt.when(found.created_at),
        fulfilment=fmt.name(Fulfilment.Name(found.fulfilment), "FULFILMENT_"),
        tracking=found.tracking_number,
        saga=el("a", "its saga, to act on it", href=url("saga", ORDERS, order_id)) if saga else "",
    )
    shown = (
        about,
        el("h2", "What happened"),
        waterfall("Events, saga steps and mails", bars, begin, end),
        el("h2", "Where it waited"),
        el("p", summary(lines) if lines else "Its calls are not kept any more."),
        _waits(lines),
        el("h2", "Calls and work"),
        gone,
        waterfall("Calls and work, each below what caused it", calls, begin, end),
    )
    # Mails and spans of an order that has ended may still come.
    pause = 10.0 if _status_word(found.status) in _ENDED else 2.0
    return Page(f"Order {order_id}", "orders", (Live("order", join(shown)),), every=pause)


async def _events(
    services: Services, found: orders_pb2.Order
) -> list[orders_pb2.StreamOrderUpdatesResponse]:
    """Its events so far; the stream would go on until it has ended."""
    request = orders_pb2.StreamOrderUpdatesRequest(order_id=found.order_id)
    updates = []
    try:
        async with asyncio.timeout(2):
            async for update in OrderServiceStub(services.mesh.channel(ORDERS)).StreamOrderUpdates(
                request
            ):
                updates.append(update)
                if update.sequence >= found.sequence:
                    break
    except (TimeoutError, grpc.RpcError):
        pass  # those that came are shown
    return updates


async def _saga(services: Services, order_id: str) -> saga_pb2.GetSagaResponse | None:
    """Its saga; None: it has none, or that is not to be had."""
    request = saga_pb2.GetSagaRequest(saga_id=order_id)
    try:
        found: saga_pb2.GetSagaResponse = await services.read(
            ORDERS, SagaServiceStub, "GetSaga", request
        )
    except grpc.RpcError:
        return None
    return found


async def _mails(services: Services, order_id: str) -> list[notifications_pb2.Notification]:
    request = notifications_pb2.ListNotificationsRequest(order_id=order_id)
    try:
        found = await services.read(
            "notifications", NotificationServiceStub, "ListNotifications", request
        )
    except grpc.RpcError:
        return []
    return list(found.notifications)


async def _calls(services: Services, order_id: str) -> tuple[list[Line], list[str]]:
    """All calls for it as trees, and who did not say what it has done."""
    traces = await services.read(
        ORDERS, TraceServiceStub, "FindTraces", trace_pb2.FindTracesRequest(key=order_id)
    )
    lines: list[Line] = []
    silent: set[str] = set()
    for trace in traces.traces[:TRACES]:
        request = trace_pb2.ListSpansRequest(trace_id=trace.trace_id, page_size=MAX_SPANS)
        answers, problems = await services.everywhere(TraceServiceStub, "ListSpans", request)
        silent |= problems.keys()
        lines += tree(
            Recorded(name, span) for name, answer in answers.items() for span in answer.spans
        )
    return lines, sorted(silent)


def _event_bars(events: list[orders_pb2.StreamOrderUpdatesResponse]) -> Iterator[Bar]:
    for event in events:
        at = event.occurred_at.ToNanoseconds()
        yield Bar(
            f"event {event.event_type.rpartition('.')[2]}", "event", at, at, _STATUS[event.status]
        )


def _saga_bars(saga: saga_pb2.GetSagaResponse | None) -> Iterator[Bar]:
    if saga is None:
        return
    began = saga.saga.created_at.ToNanoseconds()
    for step in saga.history:
        at = step.at.ToNanoseconds()
        what = "undo" if step.phase == saga_pb2.SagaPhase.SAGA_PHASE_BACKWARD else "step"
        yield Bar(f"{what} {step.step}", "saga", began, at, step.outcome, bad=step.outcome != "ok")
        began = at


def _mail_bars(mails: list[notifications_pb2.Notification]) -> Iterator[Bar]:
    for mail in mails:
        began = mail.created_at.ToNanoseconds()
        sent = mail.HasField("sent_at")
        end = mail.sent_at.ToNanoseconds() if sent else began
        said = "sent" if sent else "waits for the mail server"
        yield Bar(f"mail {mail.subject}", "mail", began, end, said, bad=not sent)


def _call_bar(line: Line) -> Bar:
    each = line.recorded
    called = each.span.kind == trace_pb2.SpanKind.SPAN_KIND_CLIENT
    return Bar(
        each.what,
        "called" if called else "handled",
        each.start,
        each.end,
        each.span.attributes.get(STATUS, ""),
        waited=each.waited,
        depth=line.depth,
        notes=tuple(each.notes()),
        bad=each.span.error,
    )


def _waits(lines: list[Line]) -> Html:
    longest = sorted((line.recorded for line in lines), key=lambda each: -each.waited)[:5]
    rows = [
        (each.what, milliseconds(each.waited), each.waited_for) for each in longest if each.waited
    ]
    return table(
        "The longest waits", ("Before", "Waited", "For what"), rows, "It has waited for nothing."
    )
