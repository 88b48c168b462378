"""Connecting to a service."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from shopctl import client
from shopctl.errors import CommandError


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
    busy = Busy()
    server = accord.Mesh("orders").server()
    health_pb2_grpc.add_HealthServicer_to_server(busy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    targets = {"orders": f"127.0.0.1:{port}"}
    mesh = accord.Mesh("shopctl", targets=targets, health_checks=[*targets])
    connected = asyncio.create_task(client.serves(mesh.channel("orders")))
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


def test_a_command_has_the_options_of_a_shop() -> None:
    """Typer is shown `home`, `offset` and `as_json` in place of the shop, before `--id`."""

    async def command(shop: client.Shop, name: str, id_only: bool = False) -> None:
        """What it does."""

    made = client.with_shop(command)
    assert list(inspect.signature(made).parameters) == [
        *("name", "home", "offset", "as_json", "id_only")
    ]
    assert made.__doc__ == "What it does."


def test_what_needs_no_service_needs_no_shop(tmp_path: Path) -> None:
    """Where a shop is, is found out by the first call: an argument may be refused before."""
    done = []

    async def command(shop: client.Shop, name: str) -> None:
        done.append(name)
        async with shop.calling("orders"):
            raise AssertionError("there is no shop")

    with pytest.raises(CommandError, match="nothing runs in"):
        client.with_shop(command)(home=tmp_path, offset=None, as_json=False, name="x")
    assert done == ["x"]
