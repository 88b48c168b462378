"""The fixtures that need an event loop; see `accord.testing.plugin`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest_asyncio

from accord.testing.clock import Clock

if TYPE_CHECKING:
    import grpc.aio

    import accord

S = TypeVar("S")


class Serve(Protocol):
    """What the fixture `accord_serve` gives."""

    async def __call__(
        self,
        servicer: Any,  # as in `accord.testing.serve`
        stub: Callable[["grpc.aio.Channel"], S],
        **settings: Any,  # as above
    ) -> S:
        """Serve a servicer until the end of the test; see `accord.testing.serve`."""
        ...


@pytest_asyncio.fixture
async def accord_mesh(
    accord_clock: Clock, accord_random: Callable[[], float]
) -> AsyncIterator["accord.Mesh"]:
    """A mesh that calls, on the test's clock. Its channels are closed at the end."""
    import accord

    mesh = accord.Mesh("test", clock=accord_clock, random=accord_random)
    yield mesh
    await mesh.close()


@pytest_asyncio.fixture
async def accord_serve(accord_mesh: "accord.Mesh", accord_clock: Clock) -> AsyncIterator[Serve]:
    """Serves servicers until the end of the test, each on a port of its own.

    Used as `parcels = await accord_serve(Parcels(), ParcelServiceStub)`.
    """
    from accord.testing.servicer import serve

    async with AsyncExitStack() as stack:

        async def start(
            servicer: Any,  # as in `Serve`
            stub: Callable[["grpc.aio.Channel"], S],
            **settings: Any,  # as above
        ) -> S:
            settings.setdefault("clock", accord_clock)
            return await stack.enter_async_context(serve(servicer, stub, accord_mesh, **settings))

        yield start
