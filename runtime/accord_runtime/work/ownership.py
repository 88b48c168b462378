"""Whose work is whose: which replicas live, and what a dead one had in hand.

A leased row belongs to the process that leased it for as long as that process lives. Replicas say
so in a table, by the database's clock, so that it does not matter what theirs say; on SQLite there
is one process, and nothing to say. A row is lost when its owner is dead, when an earlier life of
the same process had it, or when its lease ended and nobody who is alive works on it: the caller of
held work may die between the commit and the run.
"""

from collections.abc import Collection, Iterable
from typing import Final

from accord_runtime.database import Row, Tx

MIGRATIONS: Final = [
    "ALTER TABLE work ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX work_deaths ON work (deaths) WHERE deaths > 0",
    "CREATE INDEX work_leased ON work (lease_until) WHERE lease_until > 0",
    "CREATE TABLE replica (owner TEXT NOT NULL PRIMARY KEY, alive_until DOUBLE PRECISION NOT NULL)",
]

LATER_MIGRATIONS: Final = ["ALTER TABLE replica ADD COLUMN queues TEXT NOT NULL DEFAULT ''"]
"""Those that came after other tables of the runtime."""

BEAT: Final = 0.5
"""Seconds after which a replica says again that it lives."""

SILENCE: Final = 2.5
"""Seconds without a word after which a replica counts as dead: others take its work within 3 s."""

FAR: Final = 3600.0
"""Seconds beyond which a lease, or a replica's life, was written by a clock that was ahead."""


def now(tx: Tx) -> float:
    """The database's time, which is the same for all replicas; Unix seconds."""
    return float(tx.value("SELECT extract(epoch FROM clock_timestamp())"))


def beat(tx: Tx, owner: str, now: float, queues: Iterable[str]) -> list[str]:
    """Say that a replica lives, and which queues it serves; return those that have died.

    Of these each is told to one replica only.
    """
    tx.insert(
        "replica",
        {"owner": owner, "alive_until": now + SILENCE, "queues": "\n".join(queues)},
        on_conflict="(owner) DO UPDATE SET alive_until = excluded.alive_until,"
        " queues = excluded.queues",
    )
    dead = tx.all(
        "DELETE FROM replica WHERE alive_until <= :now OR alive_until > :far RETURNING owner",
        {"now": now, "far": now + FAR},
    )
    return [row["owner"] for row in dead]


def leave(tx: Tx, owner: str) -> None:
    """Give back what a replica has in hand and will not end; it goes."""
    for _ in range(2):  # The second sees what a transaction wrote for which the first had to wait.
        tx.execute(
            "UPDATE work SET lease_until = 0 WHERE owner = :owner AND lease_until > 0",
            {"owner": owner},
        )
    tx.execute("DELETE FROM replica WHERE owner = :owner", {"owner": owner})


def give_back(tx: Tx, id: str, owner: str) -> None:  # noqa: A002
    """End the lease of a row that `owner` has and does not begin."""
    tx.execute(
        "UPDATE work SET lease_until = 0 WHERE id = :id AND owner = :owner",
        {"id": id, "owner": owner},
    )


def lost(tx: Tx, owner: str, now: float, dead: Collection[str], *, began: bool) -> list[Row]:
    """The leased rows that their owners will not end, locked until the transaction ends.

    `dead` are owners known to have died. Until `owner`, who asks, `began` to lease, what is leased
    to it is lost.
    """
    leased = tx.all(
        "SELECT id, queue, key, attempts, deaths, history, owner, lease_until,"
        " EXISTS (SELECT 1 FROM replica AS r WHERE r.owner = w.owner) AS alive"
        " FROM work AS w WHERE lease_until > 0" + tx.skip_locked.replace("UPDATE", "UPDATE OF w")
    )
    return [row for row in leased if row["owner"] in dead or _ended(row, owner, now, began)]


def _ended(row: Row, owner: str, now: float, began: bool) -> bool:
    own = row["owner"] == owner
    if own and not began:
        return True
    in_time = now < row["lease_until"] <= now + FAR
    return not in_time and (own or not row["alive"])
