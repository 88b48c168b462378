"""How far a consumer has got with a source: kept beside its effects, in one transaction with them.

A database that is restored takes its position back with it; the broker's is only a hint.
"""

from dataclasses import dataclass, replace
from typing import Final

from accord_runtime.database import Tx

MIGRATIONS: Final = [
    """
    CREATE TABLE consumed (
        source TEXT NOT NULL PRIMARY KEY,
        since DOUBLE PRECISION NOT NULL,
        created TEXT NOT NULL DEFAULT '',
        acknowledged BIGINT NOT NULL DEFAULT 0,
        deleted BIGINT NOT NULL DEFAULT 0,
        position BIGINT NOT NULL DEFAULT 0,
        event_id TEXT NOT NULL DEFAULT ''
    )
    """,
]

LATER_MIGRATIONS: Final = ["ALTER TABLE consumed ADD COLUMN types TEXT NOT NULL DEFAULT ''"]
LATEST_MIGRATIONS: Final = ["ALTER TABLE consumed ADD COLUMN last TEXT NOT NULL DEFAULT ''"]
"""Those that came after other tables of the runtime."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """The row of one source."""

    since: float
    """What happened before, Unix seconds, is never taken from the record."""
    created: str
    """When the stream was created, as the broker says it: its identity; empty at the beginning."""
    acknowledged: int
    """The stream's sequence up to which messages were taken."""
    last: str
    """A sequence and the id of the event there, with a space between; empty: not noted yet. A
    version that does not note it, beside this one, leaves that of before."""
    deleted: int
    """Messages that were missing inside the stream when it was last looked at."""
    position: int
    """Up to here in the source's record, everything that is handled is in the inbox."""
    event_id: str
    """The event at that position."""
    types: str
    """Full names of what is handled, with spaces between; empty: not noted yet."""

    def last_id(self) -> str:
        """The event at the sequence that was reached; empty: none, or not noted."""
        sequence, _, event_id = self.last.partition(" ")
        return event_id if sequence == str(self.acknowledged) else ""

    def reached(self, sequence: int, event_id: str) -> "Consumed":
        """The row when messages up to this one were taken, too."""
        return replace(self, acknowledged=sequence, last=f"{sequence} {event_id}")


def begin(tx: Tx, source: str, since: float) -> None:
    """Make the row of a source, unless it is there."""
    tx.insert("consumed", {"source": source, "since": since}, on_conflict="DO NOTHING")


def read(tx: Tx, source: str) -> Consumed:
    """The row of a source, which must be there."""
    columns = ", ".join(Consumed.__slots__)
    row = tx.one(f"SELECT {columns} FROM consumed WHERE source = :source", {"source": source})
    assert row is not None
    return Consumed(**row)


def note(tx: Tx, source: str, **columns: object) -> None:
    """Change some columns of the row of a source."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    tx.execute(
        f"UPDATE consumed SET {changes} WHERE source = :source", {"source": source, **columns}
    )
