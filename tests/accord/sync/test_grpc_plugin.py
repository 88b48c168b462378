"""The sync interceptors on servers and channels that pytest-grpc makes, as its users have them."""

import asyncio
from typing import Any

import grpc
import pytest

import accord
from accord.policies.breaker import State
from tests.accord.kit import Message, Stub, handlers, path
from tests.accord.sync.kit import failure

grpc_max_workers = 8


class Servicer:
    """Echoes, and is down when it is told so."""

    def __init__(self) -> None:
        self.mesh = accord.Mesh("caller")

    def unary(self, request: Any, context: Any) -> Any:
        if request.text == "down":
            raise accord.Unavailable("DOWN")
        current = accord.current()
        return Message(
            text=f"{current.service} {current.remaining() is not None}" if current else ""
        )


@pytest.fixture(scope="module")
def grpc_interceptors() -> Any:
    return accord.Mesh("callee").sync.server_interceptors()


@pytest.fixture(scope="module")
def grpc_servicer() -> Servicer:
    return Servicer()


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    def add(servicer: Servicer, server: grpc.Server) -> None:
        server.add_generic_rpc_handlers(
            (handlers({"Unary": servicer.unary, "Retried": servicer.unary}),)
        )

    return add


@pytest.fixture(scope="module")
def grpc_stub_cls(grpc_servicer: Servicer) -> Any:
    def stub(channel: grpc.Channel) -> Stub:
        mesh = grpc_servicer.mesh
        return Stub(grpc.intercept_channel(channel, *mesh.sync.client_interceptors("echo")))

    return stub


def test_pipeline(grpc_stub: Stub) -> None:
    """A handler runs inside its pipeline: it has its service and a deadline."""
    assert grpc_stub.Unary(Message()).text == "callee True"


def test_engine(grpc_stub: Stub, grpc_servicer: Servicer) -> None:
    """Calls are made by the engine: they are tried again, and then their circuit opens."""
    for _ in range(5):
        failure(lambda: grpc_stub.Retried(Message(text="down")))
    (route,) = (r for r in grpc_servicer.mesh.snapshot().routes if r.method == path("Retried"))
    assert route.retries >= 3
    assert route.breaker is not None
    assert route.breaker.state is State.OPEN


def test_aio_client_of_a_sync_server(grpc_addr: str, grpc_server: Any) -> None:
    """A client of `grpc.aio` is served as any other."""

    async def call() -> str:
        mesh = accord.Mesh("aio")
        try:
            return str((await Stub(mesh.channel(grpc_addr)).Unary(Message())).text)
        finally:
            await mesh.close()

    assert asyncio.run(call()) == "callee True"
