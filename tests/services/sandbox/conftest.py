"""The sandbox's tables, for tests of what is below its servicers."""

import pytest

from accord_runtime.database import Database
from accord_runtime.database.migrations import migrate
from services.sandbox.store import MIGRATIONS


@pytest.fixture
async def tables(database: Database) -> Database:
    """An empty sandbox database, on each backend in turn."""
    await migrate(database, "sandbox", MIGRATIONS)
    return database
