"""A server whose contract promises what nobody keeps does not start, and says what to do."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, failure, handlers

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
async def charging(
    driver: Driver, store: Store, idempotency: Any
) -> AsyncIterator[Callable[[], Any]]:
    """A server with this setting; yields what makes the same call again and again."""
    async with driver.bare({"Charge": store.charge}, idempotency=idempotency) as served:
        yield lambda: served.stub.Charge(Message(text="x"), metadata=KEY)


@pytest.mark.parametrize(
    ("driver", "store"),
    [
        pytest.param("aio", None, id="aio, no store"),
        pytest.param("sync", None, id="sync, no store"),
        pytest.param("sync", AwaitedStore(), id="sync, a store that is awaited"),
    ],
    indirect=["driver"],
)
async def test_no_keeper_no_start(driver: Driver, store: Any) -> None:
    """KEY_REQUIRED without a store that this server can ask: one line names method and remedy."""
    with pytest.raises(accord.ContractError, match=r"idempotency=\.\.\.") as caught:
        async with charging(driver, Store(), store):
            pass
    assert caught.value.element == "accordtest.v1.EchoService/Charge"
    assert caught.value.field == "idempotency.key"
    assert '"handler"' in caught.value.problem


@pytest.mark.parametrize(
    ("driver", "store"),
    [
        pytest.param("aio", AwaitedStore(), id="aio"),
        pytest.param("aio", Store(), id="aio, a store that is not awaited"),
        pytest.param("sync", Store(), id="sync"),
    ],
    indirect=["driver"],
)
async def test_the_store_of_the_mesh_is_asked(driver: Driver, store: Store) -> None:
    """Three calls with one key have one effect, with either driver."""
    async with charging(driver, store, store) as charge:
        assert [(await charge()).text for _ in range(3)] == ["x"] * 3
    assert store.effects == 1


async def test_a_handler_may_keep_keys_itself(driver: Driver) -> None:
    """Then every call reaches it, with the scope by which it recognises a repeat."""
    store = Store()
    async with charging(driver, store, "handler") as charge:
        assert [(await charge()).text for _ in range(3)] == ["x"] * 3
    assert store.effects == 3
    assert len(store.records) == 1


async def test_what_is_not_served_is_not_promised(driver: Driver) -> None:
    """A server of another method of the same service starts without a store."""
    server = driver.server(accord.Mesh("callee"))
    await driver.start(server, {"Unary": Store().charge})
    await driver.stop(server)


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
