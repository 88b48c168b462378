"""The page on retention has every table of every service, and its bounds hold."""

import re
import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from accord import idempotency_key, stores
from accord_runtime import process
from accord_runtime.database import open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import inbox
from accord_runtime.grpc.ids import uuid7
from accord_runtime.jobs import operations
from accord_runtime.saga import orchestrator
from accord_runtime.telemetry import span_store
from accord_runtime.work import ownership
from services import topology
from services.notifications.webhooks import steps
from tests.docs.pages import ROOT
from tests.support.nats import nats_server
from tests.support.shop import order_request, running_shop
from tests.support.wait import until

PAGE: Final = (ROOT / "docs" / "retention.md").read_text()

ROWS: Final = {
    table: cells
    for table, *cells in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|", PAGE, re.M)
}
"""Table -> whose, what rows, kept how long."""

FOR_EVER: Final = {table for table, (_, _, kept) in ROWS.items() if kept.startswith("for ever")}

ORDERS: Final = 40
AT_ONCE: Final = 5


@pytest.mark.parametrize("service", topology.SERVICES)
async def test_every_table_is_listed(service: str, tmp_path: Path) -> None:
    """Those of the runtime as everybody's, others with the service that has them."""
    migrations = import_module(f"services.{service}.servicer").SERVICE.migrations
    database = await open_database(f"sqlite:///{tmp_path}/test.db", service)
    await migrate(database, "runtime", process.MIGRATIONS)
    sql = "SELECT name FROM sqlite_master WHERE type = 'table'"
    runtimes = {row["name"] for row in await database.read(lambda tx: tx.all(sql))}
    await migrate(database, service, migrations)
    found = {row["name"] for row in await database.read(lambda tx: tx.all(sql))}
    await database.close()
    for table in found:
        assert table in ROWS, f"docs/retention.md does not have {service}'s table {table}"
        assert ROWS[table][0] == ("all" if table in runtimes else service)
    own = {table for table, (whose, *_) in ROWS.items() if whose in ("all", service)}
    assert own == found, "a table that is listed is not there"


@pytest.mark.parametrize(
    ("table", "seconds"),
    [
        ("idempotency", stores.KEPT),
        ("inbox", inbox.MEMORY),
        ("saga", orchestrator.KEPT),
        ("operation", operations.KEPT),
        ("spans", span_store.MAX_AGE),
        ("replica", ownership.SILENCE),
        ("delivery", steps.KEPT),
    ],
)
def test_times_are_those_of_the_code(table: str, seconds: float) -> None:
    """What is kept for a time is kept for that time."""
    number, unit = re.match(r"([\d.]+) (days|hours|s)\b", ROWS[table][2]).groups()  # type: ignore[union-attr]
    assert float(number) * {"days": 86_400.0, "hours": 3600.0, "s": 1.0}[unit] == seconds


def test_numbers_of_rows_are_those_of_the_code() -> None:
    """Where rows are bounded by a number."""
    assert ROWS["spans"][1] == f"{span_store.MAX_ROWS:,} at most"


def sizes(home: Path, copy: Path) -> tuple[int, int]:
    """Bytes of all databases: of what is kept for ever, and of all else."""
    kept = rest = 0
    for database in sorted(home.glob("*.db")):
        copy.unlink(missing_ok=True)
        with closing(sqlite3.connect(database, isolation_level=None)) as used:
            used.execute("VACUUM INTO ?", [str(copy)])
        before = copy.stat().st_size
        with closing(sqlite3.connect(copy, isolation_level=None)) as alone:
            tables = alone.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                if table not in FOR_EVER:
                    alone.execute(f"DROP TABLE {table}")
            alone.execute("VACUUM")
        kept += copy.stat().st_size
        rest += before - copy.stat().st_size
    return kept, rest


@pytest.mark.slow
async def test_what_an_order_leaves(tmp_path: Path) -> None:
    """No more than the page says, for ever and for a time, by all that an order does."""
    home = tmp_path / "mesh"
    async with nats_server() as broker, running_shop(home, nats_url=broker.url) as shop:
        await shop.product("tea", on_hand=10 * ORDERS)
        customer = await shop.customer()

        async def place() -> None:
            key = idempotency_key(uuid7())
            await shop.orders.CreateOrder(order_request(customer, {"tea": 1}), metadata=key)

        async def over() -> bool:
            count = "SELECT COUNT(*) FROM notification WHERE sent_at IS NOT NULL"
            told = await shop.runtimes["notifications"].database.read(lambda tx: tx.value(count))
            left = [
                await runtime.database.read(lambda tx: tx.value("SELECT COUNT(*) FROM work"))
                for runtime in shop.runtimes.values()
            ]
            return int(told) == placed and not any(left)

        placed = 1  # the first one makes what all have in common
        await place()
        await until(over, "the first order is over", seconds=60.0)
        before = sizes(home, tmp_path / "copy.db")
        for _ in range(ORDERS // AT_ONCE):  # so many that a busy machine takes each in time
            for _ in range(AT_ONCE):
                await place()
            placed += AT_ONCE
            await until(over, "these orders are over", seconds=120.0)
        after = sizes(home, tmp_path / "copy.db")
    per_order = [(new - old) / ORDERS for old, new in zip(before, after, strict=True)]
    print(f"for ever {per_order[0]:,.0f}, for a time {per_order[1]:,.0f} bytes an order")
    said = re.search(r"leaves less than (\d+) KiB for ever .* less than (\d+) KiB more", PAGE)
    assert said is not None
    bounds = [1024 * int(text) for text in said.groups()]
    for bytes_, bound in zip(per_order, bounds, strict=True):
        assert bound / 8 < bytes_ < bound  # the page is not far off, either
