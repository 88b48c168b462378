"""Databases for tests: an empty one on each backend in turn, as fixtures."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from accord_runtime.database import Database, open_database
from tests.support.postgres import running_postgres

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs until the session ends."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def service() -> str:
    """A service name, and so a PostgreSQL schema, that no other test has."""
    return f"test{next(_schemas)}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL for each backend in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str, service: str) -> AsyncIterator[Database]:
    """An empty database on each backend in turn."""
    opened = await open_database(database_url, service)
    yield opened
    await opened.close()
