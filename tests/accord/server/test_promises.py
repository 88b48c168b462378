"""A server whose contract promises what nobody keeps does not start, and says what to do."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.kit import Message, Stub, failure, handlers, serving
from tests.accord.sync import kit as threads

KEY: Final = accord.idempotency_key("k1")


class Store:
    """Answers in memory; a handler writes its own."""

    def __init__(self) -> None:
        self.records: dict[accord.Scope, accord.StoredAnswer] = {}
        self.effects = 0

    def lookup(self, scope: accord.Scope) -> Any:
        return self.records.get(scope)

    def charge(self, request: Any, context: Any) -> Any:
        """A handler with an effect, in a thread or called by one that is awaited."""
        self.effects += 1
        call = accord.current()
        assert call is not None
        assert call.idempotency is not None
        self.records[call.idempotency.scope] = accord.StoredAnswer(
            call.idempotency.fingerprint, response=request.SerializeToString()
        )
        return request


class AwaitedStore(Store):
    """The same for `grpc.aio`."""

    async def lookup(self, scope: accord.Scope) -> Any:
        return self.records.get(scope)


@asynccontextmanager
async def aio(mesh: accord.Mesh, store: Store) -> AsyncIterator[Callable[[], Any]]:
    async with (
        serving(mesh, {"Charge": store.charge}) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield lambda: Stub(channel).Charge(Message(text="x"), metadata=KEY)


@asynccontextmanager
async def sync(mesh: accord.Mesh, store: Store) -> AsyncIterator[Callable[[], Any]]:
    with threads.serving(mesh, {"Charge": store.charge}) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            yield lambda: Stub(channel).Charge(Message(text="x"), metadata=KEY)


Serve = Callable[[accord.Mesh, Store], AbstractAsyncContextManager[Callable[[], Any]]]
DRIVERS: Final = [pytest.param(aio, id="aio"), pytest.param(sync, id="sync")]


@pytest.mark.parametrize(
    ("serve", "store"),
    [
        pytest.param(aio, None, id="aio, no store"),
        pytest.param(sync, None, id="sync, no store"),
        pytest.param(sync, AwaitedStore(), id="sync, a store that is awaited"),
    ],
)
async def test_no_keeper_no_start(serve: Serve, store: Any) -> None:
    """KEY_REQUIRED without a store that this server can ask: one line names method and remedy."""
    with pytest.raises(accord.ContractError, match=r"idempotency=\.\.\.") as caught:
        async with serve(accord.Mesh("callee", idempotency=store), Store()):
            pass
    assert caught.value.element == "accordtest.v1.EchoService/Charge"
    assert caught.value.field == "idempotency.key"
    assert '"handler"' in caught.value.problem


@pytest.mark.parametrize(
    ("serve", "store"),
    [
        pytest.param(aio, AwaitedStore(), id="aio"),
        pytest.param(aio, Store(), id="aio, a store that is not awaited"),
        pytest.param(sync, Store(), id="sync"),
    ],
)
async def test_the_store_of_the_mesh_is_asked(serve: Serve, store: Store) -> None:
    """Three calls with one key have one effect, with either driver."""
    async with serve(accord.Mesh("callee", idempotency=store), store) as charge:
        assert [(await charge()).text for _ in range(3)] == ["x"] * 3
    assert store.effects == 1


@pytest.mark.parametrize("serve", DRIVERS)
async def test_a_handler_may_keep_keys_itself(serve: Serve) -> None:
    """Then every call reaches it, with the scope by which it recognises a repeat."""
    store = Store()
    async with serve(accord.Mesh("callee", idempotency="handler"), store) as charge:
        assert [(await charge()).text for _ in range(3)] == ["x"] * 3
    assert store.effects == 3
    assert len(store.records) == 1


@pytest.mark.parametrize("serve", DRIVERS)
async def test_what_is_not_served_is_not_promised(serve: Serve) -> None:
    """A server of another method of the same service starts without a store."""
    mesh = accord.Mesh("callee")
    server = mesh.server() if serve is aio else mesh.sync.server()
    server.add_generic_rpc_handlers((handlers({"Unary": Store().charge}),))
    started: Any = server.start()
    if started is not None:
        await started
    stopped: Any = server.stop(None)
    await stopped if serve is aio else stopped.wait(5)


async def test_interceptors_of_a_server_of_ones_own_refuse() -> None:
    """Nobody asks them before the start: the method is INTERNAL, and nothing has happened."""
    store = Store()
    server = grpc.aio.server(interceptors=accord.Mesh("callee").server_interceptors())
    server.add_generic_rpc_handlers((handlers({"Charge": store.charge}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        error = await failure(Stub(channel).Charge(Message(), metadata=KEY))
    await server.stop(None)
    assert error.code is grpc.StatusCode.INTERNAL
    assert store.effects == 0
