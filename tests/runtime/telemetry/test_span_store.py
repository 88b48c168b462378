"""The spans of a service, and how an operator gets them."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import accord
from accord.ops.v1.trace_pb2 import (
    FindTracesRequest,
    Flow,
    ListFlowsRequest,
    ListSpansRequest,
    SpanKind,
)
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from accord_runtime.admin import traces
from accord_runtime.database import Database, DatabaseError, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS, running
from accord_runtime.telemetry import Telemetry
from accord_runtime.telemetry.kept_tracer import KeptTracerProvider
from accord_runtime.telemetry.span_store import MAX_TEXT, ROWS, SpanStore, latest, of_trace, trim
from shop.orders.v1.events_pb2 import OrderConfirmed, OrderPlaced
from tests.runtime.events.support import append
from tests.runtime.little_service import service
from tests.support.mesh import settings_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "1af7651916cd43dd8448eb211c80319c"


def tracers(store: SpanStore) -> dict[str, trace.Tracer]:
    """What a process without an exporter makes its spans with, and what one that has one does."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(store.processor())
    kept = KeptTracerProvider(store.keep)
    return {"kept": kept.get_tracer("test"), "sdk": provider.get_tracer("test")}


async def names(database: Database, trace_id: str = TRACE) -> list[str]:
    """The names of the spans of a trace in a database."""
    found = await database.read(partial(of_trace, trace_id=trace_id, most=500))
    return [span.name for span in found]


@pytest.mark.parametrize("kind", ["kept", "sdk"])
async def test_a_span_is_read_as_it_ended(record: Database, kind: str) -> None:
    """Ids, parent, times, attributes, events, links and status come back, whoever has made it."""
    store = SpanStore()
    tracer = tracers(store)[kind]
    parent = tracer.start_span("parent")
    ids = parent.get_span_context()
    began = time.time_ns()
    with tracer.start_as_current_span(
        "child",
        trace.set_span_in_context(parent),
        trace.SpanKind.PRODUCER,
        {"number": 2, "long": "x" * 1000},
        [trace.Link(ids)],
    ) as span:
        span.set_attributes({"share": 0.5, "sure": True})
        span.add_event("happened", {"why": "because"})
        span.update_name("renamed")
        span.set_status(trace.StatusCode.ERROR)
    await store.write(record)
    trace_id = f"{ids.trace_id:032x}"
    [found] = await record.read(partial(of_trace, trace_id=trace_id, most=10))
    assert (found.name, found.kind, found.error) == ("renamed", "PRODUCER", True)
    assert found.span_id == f"{span.get_span_context().span_id:016x}"
    assert found.parent_id == f"{ids.span_id:016x}"
    assert found.attributes == {
        "number": "2",
        "long": "x" * MAX_TEXT,
        "share": "0.500000",
        "sure": "true",
    }
    [(name, at, said)] = found.events
    assert (name, said) == ("happened", {"why": "because"})
    assert began <= found.start <= at <= found.end <= time.time_ns()
    assert [tuple(link) for link in found.links] == [(trace_id, f"{ids.span_id:016x}")]
    parent.end()
    parent.end()
    await store.write(record)
    assert await names(record, trace_id) == ["renamed", "parent"]


async def test_what_an_exception_says_is_not_kept(record: Database) -> None:
    """A span that an exception ends is an error and has its type; what it says may be secret."""
    store = SpanStore()
    tracer = tracers(store)["kept"]
    with (
        accord.use_trace({"traceparent": PARENT}),
        pytest.raises(ValueError, match="tok_secret"),
        tracer.start_as_current_span("fails"),
    ):
        raise ValueError("tok_secret")
    await store.write(record)
    [found] = await record.read(partial(of_trace, trace_id=TRACE, most=10))
    assert found.error
    assert [said for _, _, said in found.events] == [{"exception.type": "ValueError"}]
    assert "tok_secret" not in str(await record.read(lambda tx: tx.all("SELECT * FROM spans")))


async def test_what_is_kept_is_bounded(record: Database) -> None:
    """What there is no room for is dropped and counted; old rows go, and the oldest of too many."""
    store = SpanStore(waiting=250)
    tracer = tracers(store)["kept"]
    with accord.use_trace({"traceparent": PARENT}):
        for number in range(300):
            tracer.start_span(f"span {number}").end()
    assert store.dropped == 50
    await store.write(record)  # a hundred in a row
    assert await names(record) == [f"span {number}" for number in range(250)]
    await record.write(partial(trim, most=2, before=0.0))
    assert await names(record) == [f"span {number}" for number in range(100, 250)]
    await record.write(partial(trim, most=2, before=time.time() - 60))
    assert len(await names(record)) == 150
    await record.write(partial(trim, most=2, before=time.time() + 60))
    assert not await names(record)


async def test_a_database_that_is_away_loses_no_span(tmp_path: Path) -> None:
    """What cannot be written waits, in its order."""
    store = SpanStore()
    tracer = tracers(store)["kept"]
    database = await open_database(f"sqlite:///{tmp_path}/a.db", "little")
    with accord.use_trace({"traceparent": PARENT}):
        for number in range(3):
            tracer.start_span(f"span {number}").end()
    with pytest.raises(DatabaseError):
        await store.write(database)  # it has no tables yet
    await migrate(database, "runtime", MIGRATIONS)
    await store.close(database)
    assert await names(database) == ["span 0", "span 1", "span 2"]
    await database.close()


async def test_spans_are_listed_after_a_restart(tmp_path: Path) -> None:
    """All spans of a trace, page by page, and none of another, of all lives of a service."""
    settings = settings_of("little", tmp_path)
    for life in range(3):
        store = SpanStore()
        tracer = tracers(store)["kept"]
        with accord.use_trace({"traceparent": PARENT}):
            for number in range(5):
                tracer.start_span(f"call {life}{number}", kind=trace.SpanKind.CLIENT).end()
        tracer.start_span("other").end()
        async with (
            running(service("little"), settings, Telemetry(store)),
            grpc.aio.insecure_channel(settings.address) as channel,
        ):
            found = await _listed(TraceServiceStub(channel))
            other = ListSpansRequest(trace_id=OTHER)
            assert not (await TraceServiceStub(channel).ListSpans(other)).spans
        assert found == [f"call {past}{number}" for past in range(life + 1) for number in range(5)]


async def _listed(stub: TraceServiceStub) -> list[str]:
    """The names of the spans of a trace, read page by page."""
    found: list[str] = []
    request = ListSpansRequest(trace_id=TRACE, page_size=2)
    while True:
        page = await stub.ListSpans(request)
        assert len(page.spans) <= 2
        found += (span.name for span in page.spans)
        for span in page.spans:
            assert (span.trace_id, span.parent_span_id) == (TRACE, "b7ad6b7169203331")
            assert span.kind == SpanKind.SPAN_KIND_CLIENT
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


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


def recorded(store: SpanStore, trace_id: str, *names: str, failed: str = "", key: str = "") -> None:
    """Spans of a trace that have ended, one second long each and one after the other."""
    tracer, second = tracers(store)["kept"], 1_000_000_000
    with accord.use_trace({"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}):
        for number, name in enumerate(names):
            said = {"accord.event.key": key} if key else {}
            began = (1_000_000 + number) * second
            span = tracer.start_span(
                name, kind=trace.SpanKind.SERVER, start_time=began, attributes=said
            )
            if name == failed:
                span.set_status(trace.StatusCode.ERROR)
            span.end(began + second)


async def test_flows_are_listed_newest_first(record: Database, monkeypatch: Any) -> None:
    """By name, duration, failure and age; of a trace that was written twice, once, as a whole."""
    monkeypatch.setattr(traces, "EXAMINED", 4)
    store = SpanStore()
    ids = [f"{number:032x}" for number in range(1, 10)]
    for number, trace_id in enumerate(ids):
        recorded(store, trace_id, f"call {number}", "process paid", failed="call 3", key="o-17")
        await store.write(record)
    recorded(store, ids[0], "late")
    servicer = traces.TraceServicer(record, store)

    async def listed(**filters: Any) -> list[Flow]:
        request, found = ListFlowsRequest(page_size=3, **filters), list[Flow]()
        while True:
            page = await servicer.ListFlows(request, None)
            found += page.flows
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    found = await listed()
    assert [each.trace_id for each in found] == [ids[0], *reversed(ids[1:])]
    first = found[0]
    assert (first.name, first.kind, first.key) == ("call 0", SpanKind.SPAN_KIND_SERVER, "o-17")
    assert (first.spans, first.errors, first.failed) == (3, 0, "")
    assert (first.start.seconds, first.end.seconds) == (1_000_000, 1_000_002)
    [failed] = await listed(failed=True)
    assert (failed.trace_id, failed.errors, failed.failed) == (ids[3], 1, "call 3")
    assert [each.trace_id for each in await listed(name="late")] == [ids[0]]
    assert [each.trace_id for each in await listed(name="call 5")] == [ids[5]]
    assert len(await listed(min_duration=Duration(seconds=2))) == 9
    assert not await listed(min_duration=Duration(seconds=3))
    assert len(await listed(max_age=Duration(seconds=60))) == 9
    await asyncio.sleep(0.01)
    assert not await listed(max_age=Duration(nanos=1_000_000))


async def test_a_trace_of_many_rows_is_read_from_its_latest(record: Database) -> None:
    """One that goes on for ever costs a list of flows no more than others do."""
    store = SpanStore()
    for number in range(ROWS + 5):
        recorded(store, TRACE, f"call {number}")
        await store.write(record)
    [(_, trace_id, spans)] = await record.read(partial(latest, before="", since=0.0, most=10))
    assert trace_id == TRACE
    assert [span.name for span in spans] == [f"call {number}" for number in range(5, ROWS + 5)]
