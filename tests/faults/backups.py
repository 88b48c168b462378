"""A service's database file, copied and put back as an operator does it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def backup(database: Path, copy: Path) -> None:
    """A copy of a database that is in use, as `.backup` of the sqlite3 shell makes it."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def restore(database: Path, copy: Path) -> None:
    """Put a copy in the place of a database that nobody uses."""
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(copy, database)
