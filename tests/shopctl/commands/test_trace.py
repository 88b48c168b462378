"""`shopctl order trace`, over the shop itself."""

import json
import os
import re
import signal
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest

import accord
import services
from accord.ops.v1 import mesh_pb2, mesh_pb2_grpc, trace_pb2, trace_pb2_grpc
from accord_runtime.grpc.ids import uuid7
from services import topology
from shop.orders.v1 import orders_pb2_grpc
from shopctl.errors import ExitCode
from shopctl.supervisor import state
from shopctl.supervisor.health import State
from shopctl.supervisor.programs import SERVICES
from tests.shopctl.support.shop import Shop
from tests.support.shop import order_request
from tests.support.wait import until_sync

ADDRESS = ("--street", "Weg 1", "--city", "Berlin", "--country", "DE")
STATUS = "rpc.response.status_code"


def output(shop: Shop, *arguments: str) -> str:
    """What a command that works prints."""
    result = shop.run(*arguments)
    assert result.returncode == ExitCode.OK, result.stderr
    return result.stdout


def inject(shop: Shop, service: str, method: str, percent: int) -> None:
    """Let a share of a method's calls fail for a minute; 0 ends it."""
    fault = mesh_pb2.Fault(abort_code=14, abort_percent=percent)  # type: ignore[arg-type]
    request = mesh_pb2.InjectFaultRequest(method=method, fault=fault, reason="a test")
    request.lasting.FromSeconds(60)
    channel: Any = grpc.insecure_channel(topology.address(service, shop.offset))
    with channel:
        mesh_pb2_grpc.MeshServiceStub(channel).InjectFault(request, timeout=5)


@pytest.fixture(scope="module")
def order(real_shop: Shop) -> str:
    """A confirmed order, for whose stock the first attempts had failed."""
    output(real_shop, "product", "put", "tea", "--price", "4.50", "--stock", "1000")
    customer = output(
        real_shop,
        *("customer", "create", "--id", "--name", "Ada", "--email", "ada@example.com", *ADDRESS),
    ).strip()
    method = "shop.inventory.v1.InventoryService/ReserveStock"
    # Less than what opens a breaker: within a few orders, one is retried and none need be lost.
    inject(real_shop, "inventory", method, 30)
    placed: list[str] = []
    channel: Any = grpc.insecure_channel(topology.address("orders", real_shop.offset))
    with channel:
        orders = orders_pb2_grpc.OrderServiceStub(channel)
        traces = trace_pb2_grpc.TraceServiceStub(channel)

        def retried() -> bool:
            try:
                answer: Any = orders.CreateOrder(
                    order_request(customer, {"tea": 2}, price=450),
                    metadata=accord.idempotency_key(uuid7()),
                    timeout=5,
                )
            except grpc.RpcError:
                return False  # all three attempts have failed; the saga goes on by itself
            placed.append(answer.order.order_id)
            found: Any = traces.FindTraces(trace_pb2.FindTracesRequest(key=placed[-1]), timeout=5)
            spans: Any = traces.ListSpans(
                trace_pb2.ListSpansRequest(trace_id=found.traces[0].trace_id), timeout=5
            )
            # Once: a saga whose step has failed tries again while the caller waits.
            asked = [span for span in spans.spans if span.name == method]
            return len(asked) == 1 and len(asked[0].events) > 1

        until_sync(retried, "an order whose stock was asked for more than once")
    inject(real_shop, "inventory", method, 0)
    output(real_shop, "order", "watch", placed[-1])
    return placed[-1]


def trace(shop: Shop, order: str, *more: str) -> list[dict[str, Any]]:
    """The spans that the command finds."""
    return [
        json.loads(line)
        for line in output(shop, "order", "trace", order, "--json", *more).splitlines()
    ]


def attempts(span: dict[str, Any]) -> list[str]:
    """How the attempts of a call have ended."""
    return [
        event["attributes"][STATUS] for event in span["events"] if event["name"] == "accord.attempt"
    ]


def reserve(span: dict[str, Any]) -> bool:
    """Whether this is the orders service asking for stock."""
    return bool(span["service"] == "orders" and span["name"].endswith("/ReserveStock"))


def test_one_trace_with_the_right_parents(real_shop: Shop, order: str) -> None:
    """Placing an order is one trace: each call below the call that made it, across processes."""
    spans = trace(real_shop, order, "--call")
    assert len({span["trace_id"] for span in spans}) == 1
    by_id = {span["span_id"]: span for span in spans}
    (root,) = [span for span in spans if not span["parent_span_id"]]
    assert (root["service"], root["name"]) == ("orders", "shop.orders.v1.OrderService/CreateOrder")
    (asked,) = [span for span in spans if reserve(span)]
    step = by_id[asked["parent_span_id"]]
    assert step["name"] == "saga order: reserve"
    assert by_id[step["parent_span_id"]] is root
    assert attempts(asked)[0] == "UNAVAILABLE"
    assert attempts(asked)[-1] == "OK"
    handled = [
        span
        for span in spans
        if span["service"] == "inventory" and span["kind"] == "SPAN_KIND_SERVER"
    ]
    assert [by_id[span["parent_span_id"]] for span in handled] == [asked] * len(handled)
    # The server refuses before its handler, and says so itself: an attempt, a span.
    assert [span["attributes"][STATUS] for span in handled] == attempts(asked)
    assert all(span["start"] >= root["start"] for span in spans)


def test_the_timeline(real_shop: Shop, order: str) -> None:
    """People get bars, with the attempts of what did not work at once, and where it waited."""
    text = output(real_shop, "order", "trace", order)
    assert "orders CreateOrder" in text
    assert "→ ReserveStock" in text
    assert "attempt 1 UNAVAILABLE FAULT_INJECTED" in text
    assert "notifications process orders.order.confirmed" in text
    assert re.search(r"end to end [0-9,.]+ ms; waited [0-9.,]+ ms to be published", text)
    assert "end to end" not in output(real_shop, "order", "trace", order, "--call")


def test_the_whole_flow_over_restarts(real_shop: Shop, order: str) -> None:
    """Calls, events, saga and mail are one trace, joined by links, whoever was restarted meanwhile.

    Orders ends while it waits for the card, in order; what all have written is there when all of
    them have been killed.
    """
    customer = json.loads(output(real_shop, "order", "get", order, "--json"))["customer_id"]
    placed = output(
        real_shop,
        *("order", "place", "--id", "--customer", customer, "--item", "tea:1"),
        *("--card", "tok_slow"),
    ).strip()
    signalled(real_shop, signal.SIGTERM, "orders")
    output(real_shop, "order", "watch", placed)

    def mailed() -> bool:
        found = output(real_shop, "order", "trace", placed, "--json")
        return '"mail"' in found

    until_sync(mailed, "the mail to be sent")
    complete(trace(real_shop, placed), placed)
    names = ("orders", "payments", "inventory", "shipping", "notifications", "sandbox")
    signalled(real_shop, signal.SIGKILL, *names)
    complete(trace(real_shop, placed), placed)


def complete(spans: list[dict[str, Any]], order: str) -> None:
    """Check that spans are all that there is to say of an order that was confirmed."""
    assert len({span["trace_id"] for span in spans}) == 1
    by_id = {span["span_id"]: span for span in spans}
    published = {
        span["name"].rpartition(".")[2]: span
        for span in spans
        if span["name"].startswith("publish orders.")
    }
    events = ("placed", "created", "paid", "shipping_started", "shipped", "confirmed")
    assert set(published) >= set(events)
    assert len({span["attributes"]["messaging.message.id"] for span in published.values()}) >= 6
    for name, kind in (("receive", "CLIENT"), ("process", "CONSUMER")):
        (span, *_) = [
            span
            for span in spans
            if span["name"] == f"{name} orders.order.confirmed"
            and span["service"] == "notifications"
        ]
        assert span["kind"] == f"SPAN_KIND_{kind}"
        assert [link["span_id"] for link in span["links"]] == [published["confirmed"]["span_id"]]
        assert (
            span["attributes"]["messaging.message.id"]
            == (published["confirmed"]["attributes"]["messaging.message.id"])
        )
        assert float(span["attributes"]["accord.waited"]) >= 0
    saga = {s["attributes"]["accord.saga.step"]: s for s in spans if s["name"].startswith("saga ")}
    assert set(saga) == {"reserve", "charge", "start_shipping", "ship", "commit_stock", "confirm"}
    assert {span["attributes"]["accord.work.key"] for span in saga.values()} == {order}
    services = {span["service"] for span in spans}
    assert services >= {"orders", "payments", "inventory", "shipping", "notifications", "sandbox"}
    # Whatever was done is below what caused it; what a process was at when it ended may be missing.
    roots = [s for s in spans if s["parent_span_id"] not in by_id]
    assert "shop.orders.v1.OrderService/CreateOrder" in {span["name"] for span in roots}
    assert "tok_slow" not in json.dumps(spans)


def signalled(shop: Shop, number: signal.Signals, *names: str) -> None:
    """Signal processes of the shop, and wait until it serves with others in their place."""

    def pids() -> dict[str, int | None]:
        run = state.read_run(shop.home)
        assert run is not None
        serving = {each.name: each.pid for each in run.processes if each.state == State.SERVING}
        return {name: serving.get(name) for name in names}

    before = pids()
    for pid in before.values():
        assert pid is not None
        os.kill(pid, number)

    def back() -> bool:
        now = pids()
        return all(now[name] not in (None, before[name]) for name in names)

    until_sync(back, "the shop to serve again")


@pytest.mark.usefixtures("order")
def test_an_unknown_order(real_shop: Shop) -> None:
    """An order that does not exist is one line, and exit code 5."""
    result = real_shop.run("order", "trace", "00000000-0000-7000-8000-000000000000")
    assert result.returncode == ExitCode.REFUSED
    assert "there is no order" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("order")
def test_every_service_serves_metrics(real_shop: Shop) -> None:
    """`/metrics` is there 1,000 above every service's port, and nothing else is."""
    for name in SERVICES:
        port = topology.port(name, real_shop.offset) + topology.METRICS_DISTANCE
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "grpc_server_call_duration_seconds_bucket" in text
        assert f'service_name="{name}"' in text
        assert f'service_version="{services.__version__}"' in text
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
