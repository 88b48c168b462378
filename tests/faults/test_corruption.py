"""A page of a database that holds nonsense."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.faults.backups import backup, restore
from tests.faults.conftest import Fault
from tests.faults.scale import ORDERS, SECONDS
from tests.support.wait import until

VICTIM: Final = "payments"
TABLE: Final = "payment"


def corrupt(database: Path, table: str) -> None:
    """Overwrite the first page of a table in a file that is in use."""
    with closing(sqlite3.connect(database)) as connection:
        # The page is read from the file then, and not from the log or somebody's cache.
        [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not busy
        [(size,)] = connection.execute("PRAGMA page_size")
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table])
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


@pytest.mark.slow
async def test_a_page_of_a_database_is_corrupted(fault: Fault, tmp_path: Path) -> None:
    """Its service says so and does not serve, the others go on; with the backup all is right."""
    async with fault("a corrupted page", 2 * ORDERS, by_hand=[VICTIM]) as scene:
        shop, orders, watch = scene.shop, scene.orders, scene.watch
        part, database = shop.parts[VICTIM], shop.database(VICTIM)
        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        backup(database, tmp_path / "backup")

        watch.began()
        corrupt(database, TABLE)
        await orders.place(ORDERS)
        await until(lambda: shop.logged(VICTIM, "critical"), "a critical line", seconds=SECONDS / 2)
        for voice, said in (("health", "NOT_SERVING"), ("status", "not serving")):
            heard = lambda voice=voice, said=said: watch.says(voice, VICTIM) == said  # noqa: E731
            await until(heard, f"{voice} says {said}")
        others = shop.programs.keys() - {VICTIM}
        await until(
            lambda: all(watch.says("status", name) == "serving" for name in others), "the others do"
        )
        part.kill()
        restore(database, tmp_path / "backup")
        await part.start()
        watch.over()

        await orders.settled(SECONDS)
        watch.right()
        await orders.check()
