"""The last spans of a process, and how an operator gets them."""

from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import accord
from accord.ops.v1.trace_pb2 import FindTracesRequest, ListSpansRequest, SpanKind
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from accord_runtime.process import running
from accord_runtime.telemetry import Telemetry
from accord_runtime.telemetry.recent_spans import RecentSpans
from shop.orders.v1.events_pb2 import OrderConfirmed, OrderPlaced
from tests.runtime.events.support import append
from tests.runtime.little_service import service
from tests.support.mesh import settings_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER = "1af7651916cd43dd8448eb211c80319c"


def traced(recent: RecentSpans) -> trace.Tracer:
    """A tracer whose spans are kept."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(recent.processor())
    return provider.get_tracer("test")


def test_the_oldest_make_room() -> None:
    """Only so many spans are kept, the last ones, each as it ended."""
    recent = RecentSpans(size=3)
    tracer = traced(recent)
    parent = tracer.start_span("parent")
    context = trace.set_span_in_context(parent)
    for number in range(5):
        with tracer.start_as_current_span(f"span {number}", context) as span:
            span.set_attribute("number", number)
            span.add_event("happened", {"why": "because"})
    trace_id = parent.get_span_context().trace_id
    kept = recent.of(trace_id)
    assert [each.name for each in kept] == ["span 2", "span 3", "span 4"]
    assert [each.number for each in kept] == [3, 4, 5]
    assert kept[0].parent_id == parent.get_span_context().span_id
    assert kept[0].attributes == {"number": 2}
    assert [(name, attributes) for name, _, attributes in kept[0].events] == [
        ("happened", {"why": "because"})
    ]
    assert kept[0].start <= kept[0].events[0][1] <= kept[0].end
    assert [each.number for each in recent.of(trace_id, after=3, most=1)] == [4]
    assert not recent.of(trace_id + 1)


async def test_spans_are_listed(tmp_path: Path) -> None:
    """All spans of a trace, page by page, and none of another."""
    recent = RecentSpans()
    tracer = traced(recent)
    with accord.use_trace({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        for number in range(5):
            tracer.start_span(f"call {number}", kind=trace.SpanKind.CLIENT).end()
    tracer.start_span("other").end()
    settings = settings_of("little", tmp_path)
    async with (
        running(service("little"), settings, Telemetry(recent)),
        grpc.aio.insecure_channel(settings.address) as channel,
    ):
        stub = TraceServiceStub(channel)
        names: list[str] = []
        token = ""
        while True:
            page = await stub.ListSpans(
                ListSpansRequest(trace_id=TRACE, page_size=2, page_token=token)
            )
            assert len(page.spans) <= 2
            names += (span.name for span in page.spans)
            for span in page.spans:
                assert span.trace_id == TRACE
                assert span.parent_span_id == "b7ad6b7169203331"
                assert span.kind == SpanKind.SPAN_KIND_CLIENT
            token = page.next_page_token
            if not token:
                break
        assert names == [f"call {number}" for number in range(5)]
        assert not (await stub.ListSpans(ListSpansRequest(trace_id=OTHER))).spans


async def test_traces_of_a_key(tmp_path: Path) -> None:
    """The traces in which the events of a key were written, in their order."""
    settings = settings_of("little", tmp_path)
    async with (
        running(service("little"), settings) as runtime,
        grpc.aio.insecure_channel(settings.address) as channel,
    ):
        written = [
            (OrderPlaced(order_id="1"), TRACE),
            (OrderConfirmed(order_id="1"), TRACE),
            (OrderConfirmed(order_id="1"), OTHER),
        ]
        for sequence, (event, trace_id) in enumerate(written, 1):
            with accord.use_trace({"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}):
                await runtime.database.write(
                    lambda tx, event=event, sequence=sequence: append(  # type: ignore[misc]
                        tx, event, sequence=sequence, now=float(sequence)
                    )
                )
        stub = TraceServiceStub(channel)
        found = (await stub.FindTraces(FindTracesRequest(key="1"))).traces
        assert [each.trace_id for each in found] == [TRACE, OTHER]
        assert [name.rpartition(".")[2] for name in found[0].event_types] == [
            "OrderPlaced",
            "OrderConfirmed",
        ]
        assert found[1].at.ToSeconds() == 3
        assert not (await stub.FindTraces(FindTracesRequest(key="2"))).traces
        with pytest.raises(grpc.RpcError):
            await stub.FindTraces(FindTracesRequest(key=""))
