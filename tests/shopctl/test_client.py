"""Connecting to a service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from shopctl import client


class Busy(health_pb2_grpc.HealthServicer):
    """The health of a service that does not get round to saying it."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self.free.wait()
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def test_a_busy_service_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is there but does not get round to answering is not taken for a dead one."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.1)
    mesh = accord.Mesh("shopctl")
    busy = Busy()
    server = accord.Mesh("orders").server()
    health_pb2_grpc.add_HealthServicer_to_server(busy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connected = asyncio.create_task(client.serves(mesh.channel(f"127.0.0.1:{port}")))
    await asyncio.wait({connected}, timeout=3 * client.RESTART_SECONDS)
    assert not connected.done()
    busy.free.set()
    assert await connected
    await mesh.close()
    await server.stop(None)


async def test_a_service_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, nobody is waited for."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.1)
    mesh = accord.Mesh("shopctl")
    async with asyncio.timeout(client.BUSY_SECONDS / 2):
        assert not await client.serves(mesh.channel("127.0.0.1:1"))
    await mesh.close()
