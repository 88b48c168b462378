"""All four arities over threads, on the mesh's own channel and on a channel of the user's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.instrumentation import grpc as instrumentation

import accord
from tests.accord.kit import Message, Stub, handlers
from tests.accord.sync.kit import Hold, echo, eventually, failure, serving

OTEL: Any = instrumentation
METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]


def behaviours(hold: Hold) -> dict[str, Callable[..., Any]]:
    """Handlers that echo, refuse, abort or hold, as they are told."""

    def obey(text: str, context: Any) -> None:
        assert accord.current() is not None
        if text == "hold":
            hold(context)
        if text == "refuse":
            raise accord.FailedPrecondition("SOLD_OUT", "nothing left")
        if text == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        if text == "bug":
            raise RuntimeError("secret")
        if text == "set":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            context.set_details("beyond")

    def unary(request: Any, context: Any) -> Any:
        obey(request.text, context)
        return Message(text=request.text)

    def server_stream(request: Any, context: Any) -> Iterator[Any]:
        yield Message(text=request.text)
        obey(request.text, context)

    def client_stream(requests: Any, context: Any) -> Any:
        texts = []
        for request in requests:
            obey(request.text, context)
            texts.append(request.text)
        return Message(text=",".join(texts))

    def bidi(requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            obey(request.text, context)
            yield Message(text=request.text)

    return {
        "Unary": unary,
        "ServerStream": server_stream,
        "ClientStream": client_stream,
        "Bidi": bidi,
    }


@contextmanager
def own(hold: Hold) -> Iterator[Stub]:
    """A channel and a server of the mesh."""
    with echo(behaviours(hold)) as stub:
        yield stub


@contextmanager
def theirs(hold: Hold) -> Iterator[Stub]:
    """A channel and a server of gRPC's own, with the mesh's interceptors."""
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=callee.sync.server_interceptors())
    server.add_generic_rpc_handlers((handlers(behaviours(hold)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as bare:
        yield Stub(grpc.intercept_channel(bare, *caller.sync.client_interceptors("echo")))
    server.stop(None).wait(5)
    pool.shutdown()


@contextmanager
def instrumented(hold: Hold) -> Iterator[Stub]:
    """As `theirs`, with the interceptors of opentelemetry-instrumentation-grpc before ours."""
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    pool = ThreadPoolExecutor(8)
    server = grpc.server(
        pool, interceptors=[OTEL.server_interceptor(), *callee.sync.server_interceptors()]
    )
    server.add_generic_rpc_handlers((handlers(behaviours(hold)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as bare:
        ours = grpc.intercept_channel(bare, *caller.sync.client_interceptors("echo"))
        yield Stub(OTEL.intercept_channel(ours, OTEL.client_interceptor()))
    server.stop(None).wait(5)
    pool.shutdown()


WAYS = {"own": own, "theirs": theirs}


def start(stub: Stub, method: str, text: str, **call: Any) -> Any:
    """The call object of a method, which does not block."""
    streamed = method in ("ClientStream", "Bidi")
    argument = iter([Message(text=text)]) if streamed else Message(text=text)
    found = getattr(stub, method)
    if method in ("Unary", "ClientStream"):
        return found.future(argument, **call)
    return found(argument, **call)


def finish(call: Any, method: str) -> list[str]:
    """The texts that a call answers with."""
    if method in ("Unary", "ClientStream"):
        return [call.result().text]
    return [message.text for message in call]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_success(way: str, method: str) -> None:
    """A call gets its answer, and the status OK."""
    with WAYS[way](Hold()) as stub:
        call = start(stub, method, "a")
        assert finish(call, method) == ["a"]
        assert call.code() is grpc.StatusCode.OK
        if method in ("Unary", "ClientStream"):
            argument = Message(text="b")
            response, ended = getattr(stub, method).with_call(
                argument if method == "Unary" else iter([argument])
            )
            assert (response.text, ended.code()) == ("b", grpc.StatusCode.OK)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_errors(way: str, method: str) -> None:
    """Domain errors, aborts, codes that are set and bugs arrive; nothing of a bug is told."""
    with WAYS[way](Hold()) as stub:
        refused = failure(lambda: finish(start(stub, method, "refuse"), method))
        aborted = failure(lambda: finish(start(stub, method, "abort"), method))
        set_code = failure(lambda: finish(start(stub, method, "set"), method))
        bug = failure(lambda: finish(start(stub, method, "bug"), method))
    assert (refused.code, refused.reason, refused.domain) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SOLD_OUT",
        "callee",
    )
    assert (aborted.code, aborted.message) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert (set_code.code, set_code.message) == (grpc.StatusCode.OUT_OF_RANGE, "beyond")
    assert bug.code is grpc.StatusCode.INTERNAL
    assert "secret" not in bug.message


@pytest.mark.parametrize("method", METHODS)
def test_beside_instrumentation(method: str) -> None:
    """Behind an interceptor that only knows generators, all handlers work, and errors arrive."""
    with instrumented(Hold()) as stub:
        argument = Message(text="a")
        streamed = method in ("ClientStream", "Bidi")
        found = getattr(stub, method)(iter([argument]) if streamed else argument)
        answers = [found] if method in ("Unary", "ClientStream") else list(found)
        assert [answer.text for answer in answers] == ["a"]
        argument.text = "refuse"

        def refused() -> Any:
            found = getattr(stub, method)(iter([argument]) if streamed else argument)
            return found if method in ("Unary", "ClientStream") else list(found)

        assert failure(refused).reason == "SOLD_OUT"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_deadline(way: str, method: str) -> None:
    """The deadline ends the call for the caller, and its handler is told."""
    hold = Hold()
    with WAYS[way](hold) as stub:
        error = failure(lambda: finish(start(stub, method, "hold", timeout=0.15), method))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: hold.ended.is_set() or not hold.started.is_set())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_cancel(way: str, method: str) -> None:
    """`cancel()` reaches the handler from another thread, and the call says CANCELLED."""
    hold = Hold()
    with WAYS[way](hold) as stub:
        call = start(stub, method, "hold")
        done = threading.Event()
        call.add_callback(done.set)

        def cancel() -> None:
            hold.started.wait(3)
            assert call.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            finish(call, method)
        thread.join()
        assert call.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
        assert not call.cancel()
        assert done.wait(3)
        eventually(hold.ended.is_set)


@pytest.mark.parametrize("method", ["ServerStream", "Bidi", "Watch"])
def test_abandoned_stream(method: str) -> None:
    """A stream that its consumer stops reading and drops is cancelled on the server."""
    hold = Hold()

    def endless(request: Any, context: Any) -> Iterator[Any]:
        yield Message(text="first", sequence=1)
        hold(context)

    def first_of(call: Any) -> str:
        for message in call:
            assert hold.started.wait(3)
            return str(message.text)
        return ""

    with echo({method: endless}) as stub:
        argument = iter([Message()]) if method == "Bidi" else Message()
        assert first_of(getattr(stub, method)(argument)) == "first"
        eventually(hold.ended.is_set)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["Unary", "ClientStream"])
def test_future_does_not_block(way: str, method: str) -> None:
    """`future()` returns while its call is at work, and calls back when it has ended."""
    hold, told = Hold(), threading.Event()
    with WAYS[way](hold) as stub:
        call = start(stub, method, "hold", timeout=0.3)
        assert not call.done()
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.01)
        call.add_done_callback(lambda ended: told.set() if ended is call else None)
        assert hold.started.wait(3)
        assert isinstance(call.exception(), grpc.RpcError)
        assert told.wait(3)
        assert call.done()


def test_generator_is_closed_when_its_caller_has_gone() -> None:
    """A generator runs its `finally` when the caller has cancelled, in its own context."""
    closed: list[Any] = []

    def stream(request: Any, context: Any) -> Iterator[Any]:
        try:
            while True:
                yield Message(text="x")
        finally:
            closed.append(accord.current())

    with echo({"ServerStream": stream}) as stub:
        call = stub.ServerStream(Message())
        next(call)
        call.cancel()
        eventually(lambda: len(closed) == 1)
        assert closed[0] is not None


def test_health_of_grpc_is_served() -> None:
    """The health service of gRPC, whose Watch sends by itself, works and holds no thread."""
    mesh = accord.Mesh("callee")
    with (
        serving(mesh, {"Unary": lambda request, context: request}, max_workers=4) as address,
        grpc.insecure_channel(address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(6):
            watches.append(health.Watch(health_pb2.HealthCheckRequest(), timeout=5))
            assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == 1
        for watch in watches:
            watch.cancel()


def test_stop_tells_who_watches() -> None:
    """A server that stops in order says so first, and then takes no more calls."""
    mesh = accord.Mesh("callee")
    server = mesh.sync.server(lame_duck=0.05)
    server.add_generic_rpc_handlers((handlers({"Unary": lambda request, context: request}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        over = server.stop(1)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert over.wait(3)
