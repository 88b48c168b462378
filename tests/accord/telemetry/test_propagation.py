"""Traces: every call tree has one id, from edge to leaf and into events."""

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import accord
from accord.telemetry.propagation import incoming
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


async def _seen(request: Any, context: Any) -> Any:
    headers = accord.trace_headers()
    return Message(text=accord.trace_id(), tags={**headers, **baggage.get_all()})


async def _two_hops(driver: Driver, metadata: Any) -> tuple[str, Any]:
    """The trace ids that the middle and the leaf of a call tree see."""
    mesh = accord.Mesh("middle")
    ids = []
    async with driver.serving(accord.Mesh("leaf"), {"Unary": _seen}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            ids.append(accord.trace_id())
            return await driver.stub(mesh, leaf).Unary(Message())

        async with (
            driver.serving(mesh, {"Relay": relay}) as middle,
            grpc.aio.insecure_channel(middle) as channel,
        ):
            answer = await Stub(channel).Relay(Message(), metadata=metadata)
            await driver.close(mesh)
    return ids[0], answer


async def test_incoming_trace_travels_two_hops(driver: Driver) -> None:
    """Trace, state, sampling and baggage of the edge are seen by the leaf."""
    metadata = (("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "tenant=shop"))
    middle, leaf = await _two_hops(driver, metadata)
    assert TRACE == middle == leaf.text
    assert leaf.tags["traceparent"].startswith(f"00-{TRACE}-")
    assert leaf.tags["traceparent"].endswith("-01")
    assert leaf.tags["tracestate"] == "a=1"
    assert leaf.tags["tenant"] == "shop"


async def test_trace_without_sdk_and_without_parent(driver: Driver) -> None:
    """A call that comes without a trace gets one, unsampled, shared by its whole tree."""
    middle, leaf = await _two_hops(driver, ())
    assert re.fullmatch("[0-9a-f]{32}", middle)
    assert middle == leaf.text
    assert leaf.tags["traceparent"].endswith("-00")


async def test_trees_have_different_traces(driver: Driver) -> None:
    """Two calls from the edge do not share a trace, and nothing is left in the caller."""
    async with driver.echo({"Unary": _seen}) as stub:
        first = await stub.Unary(Message())
        second = await stub.Unary(Message())
    assert first.text != second.text
    assert accord.trace_id() == ""


async def test_active_span_is_the_parent(driver: Driver) -> None:
    """A call made inside `use_trace` belongs to that trace, streams included."""

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text=accord.trace_id())

    async with driver.echo({"Unary": _seen, "ServerStream": stream, "Watch": stream}) as stub:
        with accord.use_trace({"traceparent": PARENT}):
            assert (await stub.Unary(Message())).text == TRACE
            for method in ("ServerStream", "Watch"):
                (message,) = await collect(getattr(stub, method)(Message()))
                assert message.text == TRACE


async def test_callers_own_traceparent_wins(driver: Driver) -> None:
    """A traceparent that a caller sets by hand is left alone."""
    async with driver.echo({"Unary": _seen}) as stub:
        answer = await stub.Unary(Message(), metadata=(("traceparent", PARENT),))
    assert answer.text == TRACE


def test_headers_round_trip() -> None:
    """What an event takes along is what its consumer goes on with."""
    with accord.use_trace({"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}):
        headers = accord.trace_headers()
    assert tuple(headers[name] for name in ("traceparent", "tracestate", "baggage")) == (
        PARENT,
        "a=1",
        "k=v",
    )
    with accord.use_trace(headers):
        assert accord.trace_id() == TRACE
        assert baggage.get_baggage("k") == "v"
    assert accord.trace_id() == ""


class Complaints(logging.Handler):
    """What OpenTelemetry writes to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> "Complaints":
        logging.getLogger("opentelemetry").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("opentelemetry").removeHandler(self)


@settings(max_examples=500)
@given(st.sampled_from(["baggage", "tracestate"]), st.text('ab1=;,@ %"', min_size=1, max_size=24))
def test_only_what_can_be_read_is_parsed(name: str, text: str) -> None:
    """OpenTelemetry gets a header if it has nothing to log about it; all others are ignored."""
    assume(all(part.strip() for part in text.split(",")))
    headers = {"traceparent": PARENT, name: text}
    with Complaints() as theirs:
        context = W3CBaggagePropagator().extract(
            headers, TraceContextTextMapPropagator().extract(headers, Context())
        )
    with Complaints() as ours:
        found, ignored = incoming(headers)
    assert ours.texts == []
    assert ignored == ([name] if theirs.texts else [])
    assert trace.get_current_span(found).get_span_context().trace_id == int(TRACE, 16)
    if not ignored:
        assert baggage.get_all(found) == baggage.get_all(context)
        states = [
            trace.get_current_span(c).get_span_context().trace_state for c in (found, context)
        ]
        assert states[0] == states[1]


def test_events_without_a_trace_begin_one() -> None:
    """Headers that are missing or garbage begin a new trace."""
    for headers in ({}, {"traceparent": "garbage"}):
        with accord.use_trace(headers):
            assert len(accord.trace_id()) == 32
            assert not trace.get_current_span().is_recording()
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", accord.trace_headers()["traceparent"])
