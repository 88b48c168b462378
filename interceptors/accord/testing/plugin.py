"""Fixtures for pytest, which finds them by itself. Switched off by `-p no:accord`.

Nothing is imported until a fixture is asked for. The fixtures of sync tests are here; those that
need an event loop are in `accord.testing.aio` and are there when pytest-asyncio is, in its strict
mode as well as in its auto mode.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from accord.testing.clock import Clock, Draws, no_waiting

if TYPE_CHECKING:
    from accord.sync.mesh import SyncMesh
    from accord.testing.faulty_server import FaultyServer


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures of aio tests where there is somebody to run them."""
    if config.pluginmanager.hasplugin("asyncio"):
        from accord.testing import aio

        config.pluginmanager.register(aio, "accord-aio")


@pytest.fixture
def accord_clock() -> Iterator[Clock]:
    """A clock for this test's meshes; while it is in use nothing waits (see `no_waiting`)."""
    with no_waiting() as clock:
        yield clock


@pytest.fixture
def accord_random() -> Callable[[], float]:
    """The random source of this test's meshes: always 0.5. Override it to say otherwise."""
    return Draws(0.5)


@pytest.fixture
def accord_faulty() -> Iterator["FaultyServer"]:
    """A server that answers by script, on a free loopback port."""
    from accord.testing.faulty_server import FaultyServer

    with FaultyServer() as faulty:
        yield faulty


@pytest.fixture
def accord_sync(accord_clock: Clock, accord_random: Callable[[], float]) -> Iterator["SyncMesh"]:
    """A mesh that calls with threads, on the test's clock. Its channels are closed at the end."""
    import accord

    mesh = accord.Mesh("test", clock=accord_clock, random=accord_random).sync
    yield mesh
    mesh.close()
