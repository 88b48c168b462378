"""With threads: what the mesh does as gRPC's own. See `tests.accord.test_as_bare`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import accord
from tests.accord.kit import Message, Stub, handlers
from tests.accord.matrix import ARITIES, argument, many_responses
from tests.accord.test_as_bare import ODD_METADATA, Generic, Lean, stating

WAYS = ["mesh", "interceptors"]


@contextmanager
def both(way: str, handler: Any) -> Iterator[Any]:
    """A channel to a server, both with gRPC's own ways or with the mesh's."""
    mesh = accord.Mesh("both")
    if way == "mesh":
        server: Any = mesh.sync.server(lame_duck=0)
    else:
        ours = mesh.sync.server_interceptors() if way == "interceptors" else []
        server = grpc.server(ThreadPoolExecutor(10), interceptors=ours)
    server.add_generic_rpc_handlers((handler,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    channel: Any = mesh.sync.channel(address) if way == "mesh" else grpc.insecure_channel(address)
    if way == "interceptors":
        channel = grpc.intercept_channel(channel, *mesh.sync.client_interceptors())
    try:
        yield channel
    finally:
        channel.close()
        server.stop(None).wait(10)


def as_bare(way: str, see: Callable[[str], Any]) -> Any:
    """What `see` sees with the mesh, which must be what it sees with bare gRPC."""
    expected, found = see("bare"), see(way)
    assert found == expected
    return found


def behaviours(act: Callable[[Any], None]) -> dict[str, Any]:
    """Handlers of all arities that do `act` with their context; streams send a message before."""

    def one(request: Any, context: Any) -> Any:
        act(context)
        return Message(text="answer")

    def many(request: Any, context: Any) -> Iterator[Any]:
        yield Message(text="first")
        act(context)

    return {method: many if many_responses(method) else one for method in ARITIES}


def finish(call: Callable[[], Any], method: str) -> Any:
    """How a call ends: with a response, a code and what was said with it, or another error."""
    try:
        found = call()
        return [str(each) for each in found] if many_responses(method) else str(found)
    except grpc.RpcError as error:
        trailers: Any = error.trailing_metadata() or ()
        hints = [value for key, value in trailers if key == "hint"]
        return error.code().name, error.details(), hints
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ARITIES)
def test_code_before_an_error(method: str, way: str) -> None:
    """A status code that a handler has set counts, whatever it raises then."""

    def see(way: str) -> Any:
        with both(way, handlers(behaviours(stating))) as channel:
            return finish(lambda: getattr(Stub(channel), method)(argument(method, "")), method)

    assert as_bare(way, see) == ("NOT_FOUND", "no such thing", ["look elsewhere"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("odd", ODD_METADATA)
def test_odd_metadata(odd: str, way: str) -> None:
    """Metadata of whatever types is sent, or refused, as by gRPC."""

    def see(way: str) -> Any:
        with both(way, handlers(behaviours(lambda context: None))) as channel:
            stub = Stub(channel)
            return finish(lambda: stub.Unary(Message(), metadata=ODD_METADATA[odd]), "Unary")

    as_bare(way, see)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["Unary", "ClientStream"])
def test_expired_future(method: str, way: str) -> None:
    """The future of a call that has failed says where."""
    over = Event()

    def see(way: str) -> Any:
        over.clear()
        with both(way, handlers(behaviours(lambda context: void(over.wait(10))))) as channel:
            call = getattr(Stub(channel), method).future(argument(method, ""), timeout=0.2)
            error = call.exception()
            over.set()
            return error.code(), call.traceback() is not None, call.code()

    as_bare(way, see)


def void(_: object) -> None:
    """Nothing, of whatever it is."""


def test_lean_handlers() -> None:
    """A handler needs only the behaviour of its arity; what is no handler is refused at once."""

    def one(request: Any, context: Any) -> bytes:
        return b""

    def many(request: Any, context: Any) -> Iterator[bytes]:
        yield b""

    found = {name: Lean(name, many if many_responses(name) else one) for name in ARITIES}

    def see(way: str) -> Any:
        with both(way, Generic(found)) as channel:
            stub = Stub(channel)
            return [
                finish(partial(getattr(stub, method), argument(method, "")), method)
                for method in ARITIES
            ]

    as_bare("mesh", see)
    nobody: Any = object()
    with pytest.raises(AttributeError):
        accord.Mesh("callee").sync.server().add_generic_rpc_handlers((nobody,))


def test_health_of_their_own() -> None:
    """A health service that an application brings keeps its own settings."""
    pool = ThreadPoolExecutor(1)
    theirs = health.HealthServicer(experimental_thread_pool=pool)
    accord.Mesh("callee").sync.server()
    assert theirs.Watch.experimental_thread_pool is pool  # type: ignore[attr-defined]


def test_watchers_leave_while_the_server_stops() -> None:
    """Nobody waits for ever when who watches a server's health goes while it is told something."""
    mesh = accord.Mesh("callee")
    for _ in range(10):
        server = mesh.sync.server(lame_duck=0)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        channels = [grpc.insecure_channel(address) for _ in range(5)]
        stubs: list[Any] = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs]
        assert [next(watch).status for watch in watches] == [1] * 5
        stopping = Thread(target=partial(server.stop, 1), daemon=True)
        for channel in channels:
            channel.close()
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()
