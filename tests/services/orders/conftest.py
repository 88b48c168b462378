"""The shop, with orders in its middle, on both databases."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.support.shop import Shop, running_shop

_databases = itertools.count(1)


def new_database(server: str) -> str:
    """Create a database on a PostgreSQL server and return its URL."""
    name = f"shop{next(_databases)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    before, _, after = server.rpartition("/postgres?")
    return f"{before}/{name}?{after}"


@pytest.fixture(params=["sqlite", "postgres"])
def shop_database(request: pytest.FixtureRequest) -> str:
    """Where the services keep their state: nothing for SQLite, or a PostgreSQL URL."""
    if request.param == "sqlite":
        return ""
    return new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def shop(tmp_path: Path, shop_database: str) -> AsyncIterator[Shop]:
    """All services but notifications."""
    names = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")
    async with running_shop(tmp_path, *names, database_url=shop_database) as shop:
        yield shop
