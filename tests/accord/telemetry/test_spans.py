"""Spans, for those who install an SDK: each call has one on each side, ended once."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span

import accord
from accord.telemetry.instrumentation import MAX_MESSAGES
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect, collected, eventually, failure, patient
from tests.support.telemetry import Spans, events


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of this test."""
    return Spans(monkeypatch)


async def _unary(request: Any, context: Any) -> Any:
    if request.text == "refuse":
        raise accord.NotFound()
    if request.text == "abort":
        await context.abort(grpc.StatusCode.INTERNAL, "gone")
    if request.text == "hold":
        await asyncio.sleep(60)
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    for number in range(request.sequence):
        yield Message(sequence=number + 1)
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
    request = Message(text=text)
    streamed = method in ("ClientStream", "Bidi")
    return getattr(stub, method)(iter([request]) if streamed else request)


async def _finish(call: Any, method: str) -> Any:
    return await (call if method in ("Unary", "ClientStream") else collect(call))


def _attributes(span: Span) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("method", HANDLERS)
@pytest.mark.parametrize(
    ("text", "code"),
    [("", "OK"), ("refuse", "NOT_FOUND"), ("abort", "INTERNAL"), ("hold", "CANCELLED")],
)
async def test_one_span_per_side(
    driver: Driver, spans: Spans, method: str, text: str, code: str
) -> None:
    """Whatever the arity and the outcome, both spans end once, with the code, in one trace."""
    async with driver.echo(HANDLERS) as stub:
        call = _start(stub, method, text)
        if text == "hold":
            waiting = asyncio.ensure_future(_finish(call, method))
            await eventually(lambda: len(spans.all) == 2)
            call.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        elif text:
            await failure(_finish(call, method))
        else:
            await _finish(call, method)
        await eventually(spans.settled)
    (client,), (server,) = spans.clients, spans.servers
    assert len(spans.ended) == 2
    assert server.parent is not None
    assert server.parent.span_id == client.get_span_context().span_id
    for span in (client, server):
        assert span.name == f"accordtest.v1.EchoService/{method}"
        found = _attributes(span)
        assert found["rpc.system.name"] == "grpc"
        assert found["rpc.method"] == span.name
        assert found["rpc.response.status_code"] == code
    # What a client did not get is an error to it; to a server, only what is its own failure.
    assert client.status.is_ok == (code == "OK")
    assert server.status.is_ok == (code != "INTERNAL")
    for span in (client, server):
        assert _attributes(span).get("error.type") == (None if span.status.is_ok else code)
    attempts = events(client)
    # A call that was answered at once has nothing to add.
    assert bool(attempts) == (code != "OK")
    for attempt in attempts:
        assert attempt["rpc.response.status_code"] == code
        assert attempt["previous-rpc-attempts"] == 0


async def test_span_processor_that_fails(
    driver: Driver, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call is answered whatever the user's span processor does when its spans end."""

    def broken(span: ReadableSpan) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(spans, "on_end", broken)
    async with driver.echo({"Unary": _unary}) as stub:
        assert (await stub.Unary(Message(text="ok"))).text == "ok"
    assert len(spans.all) == 2


@pytest.mark.parametrize("method", ["ServerStream", "Watch"])
async def test_cancelled_unread_stream_ends_its_span(
    driver: Driver, spans: Spans, method: str
) -> None:
    """A stream that is cancelled without ever being read ends its span."""
    async with driver.echo(HANDLERS) as stub:
        call = _start(stub, method, "hold")
        await eventually(lambda: len(spans.all) == 2)
        call.cancel()
        await eventually(spans.settled)


@pytest.mark.parametrize("method", ["ServerStream", "Watch"])
async def test_dropped_unread_stream_ends_its_span(
    driver: Driver, spans: Spans, method: str
) -> None:
    """A stream that is thrown away without ever being read ends its span on both sides."""
    async with driver.echo(HANDLERS) as stub:
        call = _start(stub, method, "hold")
        await eventually(lambda: len(spans.all) == 2)
        del call
        await collected(spans.settled)


@pytest.mark.parametrize("method", ["ServerStream", "Watch"])
async def test_abandoned_stream_ends_its_span(driver: Driver, spans: Spans, method: str) -> None:
    """A stream whose reader stops after one message ends its span on both sides."""
    async with driver.echo(HANDLERS) as stub:
        request = Message(text="hold", sequence=3)
        async for _ in getattr(stub, method)(request):
            break
        await collected(spans.settled)
    assert _attributes(spans.clients[0])["rpc.response.status_code"] == "CANCELLED"


async def test_dropped_call_ends_its_span(driver: Driver, spans: Spans) -> None:
    """A call object that is thrown away without being awaited ends its span all the same."""
    async with driver.echo(HANDLERS) as stub:
        stub.Unary(Message())
        gc.collect()
        await eventually(lambda: len(spans.all) == 2 and spans.settled())


async def test_messages_of_a_stream_are_bounded(driver: Driver, spans: Spans) -> None:
    """The first messages of a stream leave an event each way; of the rest there is the number."""
    many = MAX_MESSAGES + 5
    async with driver.echo(HANDLERS) as stub:
        await collect(stub.ServerStream(Message(sequence=many - 1)))
        await eventually(spans.settled)
    (client,), (server,) = spans.clients, spans.servers
    inbound, outbound = events(client, "Inbound message"), events(server, "Outbound message")
    assert len(inbound) == len(outbound) == MAX_MESSAGES
    assert outbound[1] == {"sequence-number": 1, "message-size": 2}
    # With threads the last one may be read after gRPC has told that the call has ended.
    missed = many - _attributes(client)["accord.messages.received"]
    assert missed in ((0,) if driver.aio else (0, 1))
    assert _attributes(server)["accord.messages.sent"] == many


async def test_gaps_are_explained(driver: Driver, spans: Spans) -> None:
    """Every attempt is an event: number, status, what the server asked, what followed."""
    calls = 0

    async def flaky(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise accord.Unavailable("BUSY", 0.01, "busy")
        if calls == 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return request

    async with driver.echo({"Retried": flaky}) as stub:
        await stub.Retried(Message())
        await eventually(spans.settled)
    (client,) = spans.clients
    assert client.status.is_ok
    first, second, third = events(client)
    assert [each["previous-rpc-attempts"] for each in (first, second, third)] == [0, 1, 2]
    assert first["accord.reason"] == "BUSY"
    assert first["accord.pushback"] == pytest.approx(0.01)
    assert first["accord.retry"] is second["accord.retry"] is True
    assert second["rpc.response.status_code"] == "UNAVAILABLE"
    assert "accord.pushback" not in second
    assert third["rpc.response.status_code"] == "OK"
    assert "accord.retry" not in third
    assert len(spans.servers) == 3
    assert {span.parent.span_id for span in spans.servers if span.parent} == {
        client.get_span_context().span_id
    }


async def test_refusals_and_stops_are_explained(driver: Driver, spans: Spans) -> None:
    """The last attempt says why there is no other; an open breaker says when it will admit one."""

    async def broken(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with driver.served({"Retried": broken, "Fragile": broken}) as (stub, mesh):
        patient(mesh)
        await failure(stub.Retried(Message()))
        for _ in range(4):
            await failure(stub.Fragile(Message()))
        await eventually(spans.settled)
    assert len(events(spans.clients[0])) == 4
    assert events(spans.clients[0])[-1]["accord.retry.stopped"] == "attempts"
    (refused,) = events(spans.clients[-1], "accord.refused")
    assert refused["accord.reason"] == "CIRCUIT_OPEN"
    assert refused["accord.retry_after"] > 0


async def test_resumes_are_explained(driver: Driver, spans: Spans) -> None:
    """A stream that was resumed has one span, with an event for every attempt."""
    calls = 0

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal calls
        calls += 1
        yield Message(sequence=request.after + 1)
        if calls == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with driver.echo({"Watch": watch}) as stub:
        await collect(stub.Watch(Message()))
        await eventually(spans.settled)
    (client,) = spans.clients
    first, second = events(client)
    assert first["accord.resume"] is True
    assert second["rpc.response.status_code"] == "OK"
    assert len(events(client, "Inbound message")) == 2


async def test_sampled_out_costs_no_span(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    """A trace that its origin does not sample is passed on and leaves nothing here."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

    async def seen(request: Any, context: Any) -> Any:
        return Message(text=accord.trace_headers()["traceparent"])

    async with driver.echo({"Unary": seen}) as stub:
        with accord.use_trace({"traceparent": parent}):
            answer = await stub.Unary(Message())
    assert not spans.all
    assert answer.text.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert answer.text.endswith("-00")
    assert not trace.get_current_span().is_recording()
