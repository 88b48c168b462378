"""What the server does around a handler that runs in a thread, stage by stage."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import accord
from accord import Limits
from accord.ops.v1 import mesh_pb2
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, handlers, idle, path
from tests.accord.sync.kit import eventually, serving


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


def test_async_store_is_refused() -> None:
    """A store that has to be awaited is refused when the server is made, not when it is called."""

    class Async:
        async def lookup(self, scope: accord.Scope) -> None: ...

    with pytest.raises(TypeError, match="SyncIdempotencyStore"):
        accord.Mesh("callee").sync.server(idempotency=Async())  # type: ignore[arg-type]


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
        done.wait(60)

    calls: list[Any] = []

    def opened() -> bool:
        # One after the other: a crowd at once may be more than a busy machine can do.
        call = stub.ServerStream(Message())
        try:
            next(call)
        except grpc.RpcError:
            return False
        calls.append(call)
        return True

    with bare({"ServerStream": stream, "Unary": answer}, limits=Limits(streams=500)) as (stub, _):
        for _ in range(330):
            eventually(opened)
        assert stub.Unary(Message(text="a")).text == "a"
        done.set()
