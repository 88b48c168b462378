"""`shopctl order trace`, over the shop itself."""

import json
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
    spans = trace(real_shop, order)
    assert len({span["trace_id"] for span in spans}) == 1
    by_id = {span["span_id"]: span for span in spans}
    (root,) = [span for span in spans if not span["parent_span_id"]]
    assert (root["service"], root["name"]) == ("orders", "shop.orders.v1.OrderService/CreateOrder")
    (asked,) = [span for span in spans if reserve(span)]
    assert by_id[asked["parent_span_id"]] is root
    assert attempts(asked)[0] == "UNAVAILABLE"
    assert attempts(asked)[-1] == "OK"
    handled = [span for span in spans if span["service"] == "inventory"]
    assert [by_id[span["parent_span_id"]] for span in handled] == [asked] * len(handled)
    # The server refuses before its handler, and says so itself: an attempt, a span.
    assert [span["attributes"][STATUS] for span in handled] == attempts(asked)
    assert all(span["start"] >= root["start"] for span in spans)


def test_the_whole_flow(real_shop: Shop, order: str) -> None:
    """`--all` goes on into the background: payment, shipment and the parties behind them."""
    spans = trace(real_shop, order, "--all")
    assert {"payments", "shipping", "sandbox"} <= {span["service"] for span in spans}
    assert len({span["trace_id"] for span in spans}) == 1


def test_the_timeline(real_shop: Shop, order: str) -> None:
    """People get bars, with the attempts of what did not work at once."""
    text = output(real_shop, "order", "trace", order)
    assert "orders CreateOrder" in text
    assert "→ ReserveStock" in text
    assert "attempt 1 UNAVAILABLE FAULT_INJECTED" in text
    assert "more in the background: --all" in text


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
