"""Connecting to a service."""

import asyncio

import pytest

import accord
from shopctl import client
from tests.accord.kit import serving
from tests.accord.proxy import Proxy


async def test_a_busy_service_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is there but does not get round to answering is not taken for a dead one."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.1)
    mesh = accord.Mesh("shopctl")
    async with serving(accord.Mesh("orders"), {}) as address:
        proxy = Proxy(address)  # whose connections are taken by the kernel, and by nobody else
        connected = asyncio.create_task(client.serves(mesh.channel(proxy.address)))
        await asyncio.wait({connected}, timeout=3 * client.RESTART_SECONDS)
        assert not connected.done()
        with proxy:
            assert await connected
        await mesh.close()


async def test_a_service_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, nobody is waited for."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.1)
    mesh = accord.Mesh("shopctl")
    async with asyncio.timeout(client.BUSY_SECONDS / 2):
        assert not await client.serves(mesh.channel("127.0.0.1:1"))
    await mesh.close()
