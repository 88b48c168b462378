"""What the tests of the runtime share."""

from collections.abc import AsyncIterator

import pytest

from accord_runtime import saga
from accord_runtime.database import Database
from accord_runtime.database.migrations import migrate
from accord_runtime.process import MIGRATIONS
from tests.support.clock import Clock
from tests.support.nats import NatsServer, nats_server

RESULTS = "CREATE TABLE results (id TEXT NOT NULL, text TEXT NOT NULL)"
"""Where effects of the tests go; it has no key, so that what happens twice shows."""


@pytest.fixture
async def record(database: Database) -> Database:
    """A database with the tables of the runtime, on each backend in turn."""
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "test", [*saga.MIGRATIONS, RESULTS])
    return database


@pytest.fixture
def clock() -> Clock:
    """Unix time that the test moves."""
    return Clock()


@pytest.fixture
async def broker_server() -> AsyncIterator[NatsServer]:
    """A running NATS server."""
    async with nats_server() as server:
        yield server
