"""What holds for every test of the library."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from accord import mesh
from tests.accord.drivers import Driver, running


@pytest.fixture(autouse=True)
def own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """No channel of a mesh shares an earlier test's dying connection to the same port.

    gRPC has one pool of connections for all channels of a process.
    """
    own = (*mesh._CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    monkeypatch.setattr(mesh, "_CHANNEL_OPTIONS", own)


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """A test that leaves a task behind fails: every call must end completely."""
    before = asyncio.all_tasks()
    yield
    for _ in range(200):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        gc.collect(0)
        await asyncio.sleep(0.01)
    pytest.fail(f"tasks were left behind: {left}")


@pytest.fixture(params=["aio", "sync"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """What a test of behaviour is run with: each driver in turn. See `tests.accord.drivers`."""
    async with running(request.param) as found:
        yield found
