"""What the server does around a handler that runs in a thread, stage by stage."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import accord
from accord import Limits
from accord.ops.v1 import mesh_pb2
from accord.policies.queue import PATIENCE
from accord.policies.retry import PUSHBACK_KEY
from accord.policies.types import Priority
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, bound, handlers, idle, path
from tests.accord.sync.kit import Hold, eventually, failure, serving, trailers_of


@contextmanager
def bare(
    behaviours: dict[str, Any], *, store: Any = None, **mesh: Any
) -> Iterator[tuple[Stub, accord.Mesh]]:
    """A server of a mesh with these settings, and a client without interceptors."""
    found = accord.Mesh("callee", **mesh)
    with (
        serving(found, behaviours, idempotency=store) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield Stub(channel), found


def answer(request: Any, context: Any) -> Any:
    """The request."""
    return request


def test_identity_depth_and_rate() -> None:
    """Callers without an identity, chains that are too long and used-up buckets are refused."""
    with bare({"Unary": answer}, authorize=True) as (stub, _):
        assert failure(lambda: stub.Unary(Message())).reason == "NO_IDENTITY"
    with bare({"Unary": answer, "Limited": answer}) as (stub, mesh):
        deep = failure(lambda: stub.Unary(Message(), metadata=(("accord-depth", "9"),)))
        assert deep.reason == "CALL_TOO_DEEP"
        for _ in range(5):
            stub.Limited(Message())
        with pytest.raises(grpc.RpcError) as caught:
            stub.Limited(Message())
        assert accord.ServiceError.from_rpc(caught.value).reason == "RATE_LIMITED"
        assert 9000 < int(trailers_of(caught.value)[PUSHBACK_KEY]) <= 10_000
        assert idle(mesh)


def test_queue_and_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for a place, in order of priority; who waits in vain is told when to come back."""
    monkeypatch.setitem(PATIENCE, Priority.DEFAULT, 30.0)
    monkeypatch.setitem(PATIENCE, Priority.CRITICAL, 30.0)
    hold, order = threading.Event(), []

    def handler(request: Any, context: Any) -> Any:
        order.append(request.text)
        hold.wait(20)
        return request

    with bare({"Unary": handler}) as (stub, mesh), ThreadPoolExecutor(4) as callers:
        bound(mesh, "Unary", 1)

        def call(text: str, priority: Priority) -> Any:
            metadata = (("accord-priority", priority.name),)
            return stub.Unary(Message(text=text), metadata=metadata, timeout=20)

        first = callers.submit(call, "first", Priority.DEFAULT)
        eventually(lambda: order == ["first"])
        second = callers.submit(call, "second", Priority.DEFAULT)
        eventually(lambda: mesh.control.limiter.snapshot().queued == 1)
        third = callers.submit(call, "critical", Priority.CRITICAL)
        eventually(lambda: mesh.control.limiter.snapshot().queued == 2)
        error = failure(lambda: call("sheddable", Priority.SHEDDABLE))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert error.retry_after
        hold.set()
        for each in (first, second, third):
            each.result(20)
        assert order == ["first", "critical", "second"]
        eventually(lambda: idle(mesh))


def test_waiting_for_a_place_ends() -> None:
    """The wait for a place ends with the call's patience, or with the caller's deadline."""
    hold = Hold()

    def handler(request: Any, context: Any) -> Any:
        if request.text == "hold":
            hold(context)
        return request

    with bare({"Unary": handler}) as (stub, mesh):
        bound(mesh, "Unary", 1)
        held = stub.Unary.future(Message(text="hold"), timeout=5)
        assert hold.started.wait(3)
        assert failure(lambda: stub.Unary(Message())).reason == "OVERLOADED"
        late = failure(lambda: stub.Unary(Message(), timeout=0.03))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        held.cancel()
        eventually(lambda: idle(mesh))


def test_streams_have_a_limit_of_their_own() -> None:
    """One stream too many is refused; a stream holds its place until it ends."""
    hold = Hold()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request
        hold(context)

    with bare({"ServerStream": stream}, limits=Limits(streams=1)) as (stub, mesh):
        call = stub.ServerStream(Message())
        next(call)
        assert failure(lambda: list(stub.ServerStream(Message()))).reason == "OVERLOADED"
        call.cancel()
        eventually(lambda: idle(mesh))


def test_async_store_is_refused() -> None:
    """A store that has to be awaited is refused when the server is made, not when it is called."""

    class Async:
        async def lookup(self, scope: accord.Scope) -> None: ...

    with pytest.raises(TypeError, match="SyncIdempotencyStore"):
        accord.Mesh("callee").sync.server(idempotency=Async())  # type: ignore[arg-type]


def test_expired_work_is_not_begun() -> None:
    """A call whose deadline has passed while it waited never reaches its handler."""
    ran: list[str] = []

    def handler(request: Any, context: Any) -> Any:
        ran.append(request.text)
        time.sleep(0.15)
        return request

    with bare({"Unary": handler}) as (stub, mesh):
        bound(mesh, "Unary", 1)
        first = stub.Unary.future(Message(text="first"))
        eventually(lambda: ran == ["first"])
        late = failure(lambda: stub.Unary(Message(text="late"), timeout=0.05))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        first.result(3)
        eventually(lambda: idle(mesh))
    assert ran == ["first"]


class Careless(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Sets trailers that cannot be sent."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handle = continuation(handler_call_details).stream_stream

        def behaviour(requests: Any, context: Any, send: Any) -> None:
            context.set_trailing_metadata((("x-note", 3),))
            handle(requests, context, send)

        behaviour.experimental_non_blocking = True  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(behaviour)


def test_place_is_given_back() -> None:
    """A stream that cannot even be ended holds no place when its handler has returned."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request

    mesh = accord.Mesh("callee")
    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[Careless(), *mesh.sync.server_interceptors()]
    )
    server.add_generic_rpc_handlers((handlers({"ServerStream": stream}),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with grpc.insecure_channel(address) as channel:
        call = Stub(channel).ServerStream(Message(), timeout=5)
        next(call)
        eventually(lambda: idle(mesh))
    server.stop(None).wait(3)


def test_request_that_never_comes() -> None:
    """A caller without a deadline that sends no request has a thread for the contract's time."""
    never = threading.Event()

    def sending() -> Iterator[Any]:
        never.wait(10)
        yield from ()

    mesh = accord.Mesh("callee")
    short = policy_pb2.MethodPolicy()
    short.timeout.nanos = 50_000_000
    mesh.control.overrides.set(path("Unary"), mesh_pb2.Override(policy=short))
    with (
        serving(mesh, {"Unary": answer}, max_workers=1) as address,
        grpc.insecure_channel(address) as channel,
    ):
        silent: Any = channel.stream_unary
        call = silent(path("Unary")).future(sending())
        assert call.code() is grpc.StatusCode.CANCELLED
        assert Stub(channel).Unary(Message(text="b"), timeout=3).text == "b"
        never.set()


def test_streams_leave_threads_for_other_calls() -> None:
    """As many streams as are admitted are open, and a call is answered still."""
    done = threading.Event()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request
        done.wait(10)

    with bare({"ServerStream": stream, "Unary": answer}, limits=Limits(streams=330)) as (stub, _):
        calls = [stub.ServerStream(Message()) for _ in range(330)]
        for call in calls:
            next(call)
        assert stub.Unary(Message(text="a")).text == "a"
        done.set()
