"""Channels of credentials that are renewed."""

import asyncio
import gc
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

import accord
from accord.identity import Identity
from tests.accord.drivers import Driver, ways
from tests.accord.identity.authority import Authority
from tests.accord.identity.kit import credentials, served, whose
from tests.accord.kit import Message, eventually

ORDERS: Final = "spiffe://shop.internal/orders"
CA: Final = Authority()


def connections(address: str) -> int:
    """Open connections of this process to a server."""
    port = int(address.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(
        1 for each in found if each.raddr and each.raddr[1] == port and each.status == "ESTABLISHED"
    )


@pytest.fixture
def server(tmp_path: Path) -> Identity:
    """Who the server is."""
    return Identity.from_folder(CA.issue("spiffe://shop.internal/payments").write(tmp_path))


@ways("aio", "sync", "blocking")
async def test_fifty_renewals(driver: Driver, server: Identity) -> None:
    """The channels of credentials that were replaced are closed; one is left."""
    mesh = accord.Mesh("orders")
    async with served(driver, accord.Mesh("payments", identity=server), server) as address:
        for _ in range(50):
            shown = credentials(CA.issue(ORDERS))
            stub = driver.stub(mesh, address, credentials=shown)
            assert (await stub.Unary(Message(), timeout=10)).text == ORDERS
        gc.collect()
        await eventually(lambda: connections(address) == 1, 10)
        again = driver.stub(mesh, address, credentials=shown)
        assert (await again.Unary(Message(), timeout=10)).text == ORDERS
        assert connections(address) == 1
        await driver.close(mesh)
        await eventually(lambda: connections(address) == 0, 10)


async def test_calls_and_stubs_outlive_credentials(driver: Driver, server: Identity) -> None:
    """Who has a stub may go on with it, and a call that runs is not ended; the mesh closes both."""
    going = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        for text in "abc":
            yield Message(text=text)
            await going.wait()

    mesh = accord.Mesh("orders")
    methods = {"Unary": whose, "ServerStream": slow}
    async with served(driver, accord.Mesh("payments", identity=server), server, methods) as address:
        stub = driver.stub(mesh, address, credentials=credentials(CA.issue(ORDERS)))
        unary, answers = stub.Unary, aiter(stub.ServerStream(Message()))
        texts = [(await anext(answers)).text]
        del stub
        gc.collect()
        assert (await unary(Message(), timeout=10)).text == ORDERS
        going.set()
        texts += [each.text async for each in answers]
        assert texts == [*"abc"]
        await driver.close(mesh)
        with pytest.raises(Exception, match="closed"):
            await unary(Message())
