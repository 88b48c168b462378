"""Beside opentelemetry-instrumentation-grpc each call still has one span a side, with threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import opentelemetry.instrumentation.grpc as instrumentation
import pytest

import accord
from tests.accord.kit import Message, Stub, handlers
from tests.accord.sync.kit import eventually, failure
from tests.support.telemetry import Spans

THEIRS = "opentelemetry.instrumentation.grpc"
instrument: Any = instrumentation


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of this test, the library's and the instrumentation's."""
    return Spans(monkeypatch)


@pytest.fixture
def instrumented(spans: Spans) -> Iterator[None]:
    """The instrumentation, switched on for both sides."""
    both = (instrument.GrpcInstrumentorClient(), instrument.GrpcInstrumentorServer())
    for each in both:
        each.instrument(tracer_provider=spans.provider)
    try:
        yield
    finally:
        for each in both:
            each.uninstrument()


def _unary(request: Any, context: Any) -> Any:
    if request.text == "refuse":
        raise accord.FailedPrecondition("SOLD_OUT")
    return request


def _stream(request: Any, context: Any) -> Iterator[Any]:
    yield _unary(request, context)
    yield request


def _upload(requests: Any, context: Any) -> Any:
    return _unary(list(requests)[-1], context)


def _bidi(requests: Any, context: Any) -> Iterator[Any]:
    for request in requests:
        yield _unary(request, context)


HANDLERS = {"Unary": _unary, "ServerStream": _stream, "ClientStream": _upload, "Bidi": _bidi}


def _texts(stub: Stub, method: str, text: str) -> list[str]:
    """What a call answers with."""
    request = Message(text=text, sequence=1)
    streamed = method in ("ClientStream", "Bidi")
    answer = getattr(stub, method)(iter([request, request]) if streamed else request)
    one = method in ("Unary", "ClientStream")
    return [message.text for message in ([answer] if one else answer)]


def _call(stub: Stub, method: str) -> None:
    """A call that must work."""
    assert set(_texts(stub, method, "x")) == {"x"}


def _one_each(spans: Spans, client_scope: str, server_scope: str) -> None:
    """One span on each side, from these scopes, the server's below the client's."""
    eventually(lambda: len(spans.all) == 2 and spans.settled())
    (client,), (server,) = spans.clients, spans.servers
    for span, scope in ((client, client_scope), (server, server_scope)):
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == scope
    assert server.parent is not None
    assert server.parent.span_id == client.get_span_context().span_id


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("method", HANDLERS)
def test_channels_and_servers_of_the_mesh(spans: Spans, method: str) -> None:
    """What the mesh makes is beneath the instrumentation: the spans are the library's."""
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    server = callee.sync.server(lame_duck=0)
    server.add_generic_rpc_handlers((handlers(HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        _call(Stub(caller.sync.channel(f"127.0.0.1:{port}")), method)
        _one_each(spans, "accord", "accord")
    finally:
        caller.sync.close()
        server.stop(None).wait()


@contextmanager
def _own(mesh: accord.Mesh, *before: Any) -> Iterator[str]:
    """A server made without the mesh, with its interceptors after others; yields its address."""
    interceptors = [*before, *mesh.sync.server_interceptors()]
    server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors)
    server.add_generic_rpc_handlers((handlers(HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("method", HANDLERS)
def test_own_channels_and_servers(spans: Spans, method: str) -> None:
    """On a server its interceptors come first, and the span is its own; on a channel ours do."""
    mesh = accord.Mesh("mesh")
    with _own(mesh) as address, grpc.insecure_channel(address) as channel:
        ours = grpc.intercept_channel(channel, *mesh.sync.client_interceptors("echo"))
        _call(Stub(ours), method)
        _one_each(spans, "accord", THEIRS)


@pytest.mark.parametrize("method", HANDLERS)
def test_interceptors_before_ours(method: str) -> None:
    """Behind an interceptor that only knows generators, all handlers work, and errors arrive."""
    mesh = accord.Mesh("mesh")
    with (
        _own(mesh, instrument.server_interceptor()) as address,
        grpc.insecure_channel(address) as channel,
    ):
        ours = grpc.intercept_channel(channel, *mesh.sync.client_interceptors("echo"))
        stub = Stub(instrument.intercept_channel(ours, instrument.client_interceptor()))
        _call(stub, method)
        assert failure(lambda: _texts(stub, method, "refuse")).reason == "SOLD_OUT"
