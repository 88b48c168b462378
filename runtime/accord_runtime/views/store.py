"""What is on record of views, and the transactions on it.

Every transaction that changes a view changes its row first: they follow each other, so that none
can miss a swap. An event is applied to a generation if it comes behind the last one of its key
there; that makes twice once, whichever way it comes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from accord_runtime.database import Tx
from accord_runtime.events.inbox import Received

MIGRATIONS: Final = [
    """
    CREATE TABLE view_state (
        name TEXT NOT NULL PRIMARY KEY,
        version BIGINT NOT NULL DEFAULT 0,
        generation BIGINT NOT NULL DEFAULT 0,
        revision BIGINT NOT NULL DEFAULT 0,
        swapped BIGINT NOT NULL DEFAULT 0,
        position BIGINT NOT NULL DEFAULT 0,
        built_at DOUBLE PRECISION NOT NULL DEFAULT 0,
        building BIGINT NOT NULL DEFAULT 0,
        reached BIGINT NOT NULL DEFAULT 0,
        began_at DOUBLE PRECISION NOT NULL DEFAULT 0,
        newest BIGINT NOT NULL DEFAULT 0,
        swept BIGINT NOT NULL DEFAULT 0,
        problem TEXT NOT NULL DEFAULT ''
    )
    """,
    """
    CREATE TABLE view_key (
        name TEXT NOT NULL,
        generation BIGINT NOT NULL,
        key TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        PRIMARY KEY (name, generation, key)
    )
    """,
    """
    CREATE TABLE view_tail (
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        payload BLOB NOT NULL,
        occurred_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (name, key, sequence)
    )
    """,
]

BATCH: Final = 500
"""Rows that one transaction of a rebuild reads from the tail, or deletes."""


@dataclass(frozen=True, slots=True)
class Change:
    """An event that is applied to one generation of a view."""

    generation: int
    revision: int
    """Number of the change; what is written may be marked with it."""
    event: Received[Any]


@dataclass(frozen=True, slots=True)
class View:
    """What a view is made of."""

    name: str
    version: int
    """Of its definition, from 1: where one of a lower version is on record, it is rebuilt."""
    apply: Mapping[type[Message], Callable[[Tx, Change], None]]
    """What each event does to the rows of a generation; has no effect but by its transaction."""
    tables: Mapping[str, str]
    """Table -> a column. The table has a column `generation`, too, and an index on the two."""

    def type_of(self, name: str) -> type[Message] | None:
        """The class of an event, by its full name; None of one that changes nothing."""
        return next((each for each in self.apply if each.DESCRIPTOR.full_name == name), None)


@dataclass(frozen=True, slots=True)
class State:
    """The row of a view."""

    name: str
    version: int = 0
    """Of the definition that the generation was built by."""
    generation: int = 0
    """The one that answers; 0 if none has been built: it has what came since the service began."""
    revision: int = 0
    """Number of the last change."""
    swapped: int = 0
    """The revision at which this generation took over."""
    position: int = 0
    """Up to here in the source's record, the generation was built from it."""
    built_at: float = 0.0
    """When it took over, Unix seconds; 0 if none has been built."""
    building: int = 0
    """The generation that is being built; 0 for none."""
    reached: int = 0
    """Up to here in the source's record, that one has been built."""
    began_at: float = 0.0
    """When that began, Unix seconds."""
    newest: int = 0
    """The highest generation that was ever begun."""
    swept: int = 0
    """Generations before this one have no rows."""
    problem: str = ""
    """Why the last rebuild has failed, or waits; empty if nothing is wrong."""


_COLUMNS: Final = ", ".join(State.__slots__)


def read(tx: Tx, name: str) -> State:
    """The row of a view; as good as empty until it is first built."""
    row = tx.one(f"SELECT {_COLUMNS} FROM view_state WHERE name = :name", {"name": name})
    return State(**row) if row else State(name)


def change(tx: Tx, name: str, changes: str = "", **params: object) -> State:
    """Give a view its next revision, make other changes as in SQL, and keep others from it."""
    more = changes and f", {changes}"
    sql = f"UPDATE view_state SET revision = revision + 1{more} WHERE name = :name"
    tx.execute(sql, {"name": name, **params})
    return read(tx, name)


def begin(tx: Tx, name: str, now: float) -> State:
    """Begin to build the next generation, from zero, whether or not another is being built."""
    tx.insert("view_state", {"name": name}, on_conflict="DO NOTHING")
    tx.execute("DELETE FROM view_tail WHERE name = :name", {"name": name})
    return change(
        tx,
        name,
        "newest = newest + 1, building = newest + 1, reached = 0, began_at = :now, problem = ''",
        now=now,
    )


def give_up(tx: Tx, name: str, problem: str) -> None:
    """End the rebuild that is under way; the view stays what it is."""
    tx.execute("DELETE FROM view_tail WHERE name = :name", {"name": name})
    change(tx, name, "building = 0, problem = :problem", problem=problem)


def take(tx: Tx, view: View, event: Received[Any]) -> None:
    """Apply an event to the view, and keep it for the generation that is being built."""
    state = change(tx, view.name)
    apply(tx, view, Change(state.generation, state.revision, event))
    if state.building and event.sequence > last(tx, view.name, state.building, event.key):
        row = {
            "name": view.name,
            "key": event.key,
            "sequence": event.sequence,
            "event_id": event.event_id,
            "type": event.payload.DESCRIPTOR.full_name,
            "payload": event.payload.SerializeToString(),
            "occurred_at": event.occurred_at,
        }
        tx.insert("view_tail", row, on_conflict="DO NOTHING")


def apply(tx: Tx, view: View, change: Change) -> None:
    """Apply an event to a generation, unless that has it."""
    event = change.event
    if event.sequence <= last(tx, view.name, change.generation, event.key):
        return
    view.apply[type(event.payload)](tx, change)
    row = {"name": view.name, "generation": change.generation, "key": event.key}
    tx.insert(
        "view_key",
        {**row, "sequence": event.sequence},
        on_conflict="(name, generation, key) DO UPDATE SET sequence = excluded.sequence",
    )


def swap(tx: Tx, view: View, now: float) -> bool:
    """Let the generation that was built answer, if no more than a batch was kept for it.

    False when there is more; then a batch of it has been applied.
    """
    state = change(tx, view.name)
    rows = tx.all(
        "SELECT key, sequence, event_id, type, payload, occurred_at FROM view_tail"
        " WHERE name = :name ORDER BY key, sequence LIMIT :most",
        {"name": view.name, "most": BATCH},
    )
    for row in rows:
        if message := view.type_of(row.pop("type")):
            event = Received(**{**row, "payload": message.FromString(row["payload"])})
            apply(tx, view, Change(state.building, state.revision, event))
        tx.execute(
            "DELETE FROM view_tail WHERE name = :name AND key = :key AND sequence = :sequence",
            {"name": view.name, "key": row["key"], "sequence": row["sequence"]},
        )
    if len(rows) == BATCH:
        return False
    changes = "generation = building, building = 0, position = reached, swapped = revision"
    more = "built_at = :now, version = :version, problem = ''"
    change(tx, view.name, f"{changes}, {more}", now=now, version=view.version)
    return True


def sweep(tx: Tx, view: View) -> bool:
    """Delete a batch of what no generation that answers needs; False when nothing is left."""
    state = read(tx, view.name)
    if state.swept >= state.generation:
        return False
    mine = {"name": view.name, "generation": state.swept, "most": BATCH}
    deleted = 0
    for table, column in {"view_key": "key", **view.tables}.items():
        where = "generation = :generation" + (" AND name = :name" if table == "view_key" else "")
        last = f"SELECT {column} FROM {table} WHERE {where} ORDER BY {column} LIMIT :most"
        deleted += tx.execute(
            f"DELETE FROM {table} WHERE {where}"
            f" AND {column} <= (SELECT MAX({column}) FROM ({last}) AS batch)",
            mine,
        )
    if not deleted:
        tx.execute("UPDATE view_state SET swept = swept + 1 WHERE name = :name", mine)
    return True


def last(tx: Tx, name: str, generation: int, key: str) -> int:
    """The number of the last event of a key in a generation."""
    found = tx.value(
        "SELECT sequence FROM view_key"
        " WHERE name = :name AND generation = :generation AND key = :key",
        {"name": name, "generation": generation, "key": key},
    )
    return int(found or 0)
