"""Spans, for those who install an SDK: each call has one on each side, ended once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace

import accord
from accord import telemetry
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure


class Span(trace.NonRecordingSpan):
    """A span that remembers how it ended."""

    def __init__(self, tracer: "Tracer", name: str, kind: trace.SpanKind, parent: Any) -> None:
        trace_id = parent.trace_id if parent.is_valid else 7
        super().__init__(trace.SpanContext(trace_id, tracer.next_id(), False, trace.TraceFlags(1)))
        self.name, self.kind, self.parent = name, kind, parent.span_id
        self.attributes: dict[str, Any] = {}
        self.ended = 0

    def is_recording(self) -> bool:
        return self.ended == 0

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def end(self, end_time: int | None = None) -> None:
        self.ended += 1


class Tracer(trace.NoOpTracer):
    """A tracer that keeps its spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def next_id(self) -> int:
        return len(self.spans) + 1

    def start_span(  # type: ignore[override]
        self, name: str, context: Any = None, kind: Any = trace.SpanKind.INTERNAL, **_: Any
    ) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        span = Span(self, name, kind, parent)
        self.spans.append(span)
        return span


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """The tracer that the library uses in this test."""
    found = Tracer()
    monkeypatch.setattr(telemetry, "_tracer", found)
    return found


async def _unary(request: Any, context: Any) -> Any:
    if request.text == "refuse":
        raise accord.NotFound("order", "1")
    if request.text == "hold":
        await asyncio.sleep(60)
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    yield await _unary(request, context)


async def _upload(requests: Any, context: Any) -> Any:
    async for request in requests:
        await _unary(request, context)
    return Message()


async def _bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield await _unary(request, context)


HANDLERS = {
    "Unary": _unary,
    "ServerStream": _stream,
    "Watch": _stream,
    "ClientStream": _upload,
    "Bidi": _bidi,
}


def _start(stub: Stub, method: str, text: str) -> Any:
    request = Message(text=text, sequence=1)
    streamed = method in ("ClientStream", "Bidi")
    return getattr(stub, method)(iter([request]) if streamed else request)


async def _finish(call: Any, method: str) -> Any:
    return await (call if method in ("Unary", "ClientStream") else collect(call))


@pytest.mark.parametrize("method", HANDLERS)
@pytest.mark.parametrize(
    ("text", "code"), [("", "OK"), ("refuse", "NOT_FOUND"), ("hold", "CANCELLED")]
)
async def test_one_span_per_side(tracer: Tracer, method: str, text: str, code: str) -> None:
    """Whatever the arity and the outcome, both spans end once, with the code, in one trace."""
    async with echo(HANDLERS) as stub:
        call = _start(stub, method, text)
        if text == "hold":
            waiting = asyncio.ensure_future(_finish(call, method))
            await eventually(lambda: len(tracer.spans) == 2)
            call.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        elif text == "refuse":
            await failure(_finish(call, method))
        else:
            await _finish(call, method)
        await eventually(lambda: all(span.ended for span in tracer.spans))
    client, server = tracer.spans
    assert (client.kind, server.kind) == (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    assert {f"accordtest.v1.EchoService/{method}"} == {client.name, server.name}
    assert server.parent == client.get_span_context().span_id
    for span in (client, server):
        assert span.attributes["rpc.response.status_code"] == code
        assert span.ended == 1


async def test_abandoned_stream_ends_its_span(tracer: Tracer) -> None:
    """A stream that is cancelled without ever being read ends its span."""
    async with echo(HANDLERS) as stub:
        for method in ("ServerStream", "Watch"):
            call = _start(stub, method, "hold")
            await eventually(lambda: len(tracer.spans) % 2 == 0 and bool(tracer.spans))
            call.cancel()
            await eventually(lambda: all(span.ended == 1 for span in tracer.spans))
