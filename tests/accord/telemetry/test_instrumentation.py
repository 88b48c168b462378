"""Beside opentelemetry-instrumentation-grpc each call still has one span a side."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import opentelemetry.instrumentation.grpc as instrumentation
import pytest

import accord
from tests.accord.kit import Message, Stub, collect, echo, eventually, handlers
from tests.support.telemetry import Spans

THEIRS = "opentelemetry.instrumentation.grpc"
instrument: Any = instrumentation


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of this test, the library's and the instrumentation's."""
    return Spans(monkeypatch)


@pytest.fixture
def instrumented(spans: Spans) -> Iterator[None]:
    """The instrumentation, switched on for both sides of `grpc.aio`."""
    both = (instrument.GrpcAioInstrumentorClient(), instrument.GrpcAioInstrumentorServer())
    for each in both:
        each.instrument(tracer_provider=spans.provider)
    try:
        yield
    finally:
        for each in both:
            each.uninstrument()


async def _unary(request: Any, context: Any) -> Any:
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    yield request
    yield request


async def _writer(request: Any, context: Any) -> None:
    await context.write(request)
    await context.write(request)


async def _upload(requests: Any, context: Any) -> Any:
    return [request async for request in requests][-1]


async def _bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


HANDLERS = {
    "Unary": _unary,
    "ServerStream": _stream,
    "Quiet": _writer,
    "Watch": _stream,
    "ClientStream": _upload,
    "Bidi": _bidi,
}


async def _call(stub: Stub, method: str) -> None:
    """A call that must work."""
    request = Message(text="x", sequence=1)
    streamed = method in ("ClientStream", "Bidi")
    call = getattr(stub, method)(iter([request, request]) if streamed else request)
    if method in ("Unary", "ClientStream"):
        assert (await call).text == "x"
    else:
        assert (await collect(call))[-1].text == "x"


def _one_each(spans: Spans, scope: str) -> None:
    """One span on each side, from `scope`, the server's below the client's."""
    (client,), (server,) = spans.clients, spans.servers
    for span in (client, server):
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == scope
    assert server.parent is not None
    assert server.parent.span_id == client.get_span_context().span_id


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("method", HANDLERS)
async def test_channels_and_servers_of_the_mesh(spans: Spans, method: str) -> None:
    """What the mesh makes is beneath the instrumentation: the spans are the library's."""
    async with echo(HANDLERS) as stub:
        await _call(stub, method)
        await eventually(spans.settled)
    _one_each(spans, "accord")


@asynccontextmanager
async def _own(after_server: list[Any], after_client: list[Any]) -> AsyncIterator[Stub]:
    """A server and a channel made without the mesh, with its interceptors before others."""
    mesh = accord.Mesh("mesh")
    server = grpc.aio.server(interceptors=[*mesh.server_interceptors(), *after_server])
    server.add_generic_rpc_handlers((handlers(HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            interceptors=[*mesh.client_interceptors("echo"), *after_client],
        ) as channel:
            yield Stub(channel)
    finally:
        await server.stop(None)


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("method", HANDLERS)
async def test_own_channels_and_servers(spans: Spans, method: str) -> None:
    """With only our interceptors, the instrumentation comes first: the span is its own.

    All shapes of handlers work, and its span is told what ours would have been.
    """
    async with _own([], []) as stub:
        await _call(stub, method)
        await eventually(spans.settled)
    _one_each(spans, THEIRS)
    assert (spans.clients[0].attributes or {})["rpc.response.status_code"] == "OK"


@pytest.mark.parametrize("method", HANDLERS)
async def test_their_interceptors_after_ours(spans: Spans, method: str) -> None:
    """Interceptors of the instrumentation that come after ours make no second span."""
    theirs = instrument.aio_client_interceptors(spans.provider)
    async with _own([instrument.aio_server_interceptor(spans.provider)], theirs) as stub:
        await _call(stub, method)
        await eventually(spans.settled)
    _one_each(spans, "accord")
