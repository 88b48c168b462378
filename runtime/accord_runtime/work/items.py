"""What an operator sees of the table of work: items by state and age, each with its failures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from accord_runtime.database import Row, Tx, among
from accord_runtime.grpc.page_tokens import Page


class State(StrEnum):
    """Where an item stands; the names are the contract's."""

    READY = "ready"
    PARKED = "parked"
    LEASED = "leased"


# The last error of a history, and what finds a text in it, by whether that is asked of Postgres.
_LAST_ERROR: Final = {
    False: ("json_extract(history, '$[#-1].error')", "instr"),
    True: ("(history::json -> -1 ->> 'error')", "strpos"),
}

WHERE: Final = {
    State.READY: "state = 'ready' AND lease_until = 0",
    State.PARKED: "state = 'parked'",
    State.LEASED: "lease_until > 0",
}


@dataclass(frozen=True, slots=True)
class Item:
    """A row of work, as an operator sees it."""

    id: str
    queue: str
    key: str
    seq: int
    """Its order among the rows of its queue and key; then comes the id."""
    state: State
    due_at: float
    attempts: int
    owner: str
    lease_until: float
    history: list[dict[str, Any]]
    """Failures, oldest first: {at, attempt, error}."""
    trace: dict[str, str]
    """W3C headers of whoever enqueued it."""
    created_at: float

    @property
    def last_error(self) -> str:
        """Why the last attempt failed; empty before the first failure."""
        return str(self.history[-1]["error"]) if self.history else ""

    @property
    def standing(self) -> str:
        """Its state in words, for the audit record."""
        if not self.attempts:
            return self.state
        return f"{self.state}, failed {self.attempts}x: {self.last_error}"

    def __str__(self) -> str:
        return f"{self.queue} {self.key} {self.standing}"


_COLUMNS: Final = ", ".join(Item.__slots__)


def find(tx: Tx, id: str, *, lock: bool = False) -> Item | None:  # noqa: A002
    """The item with this id; `lock` keeps it as it is until the commit."""
    sql = f"SELECT {_COLUMNS} FROM work WHERE id = :id" + (tx.for_update if lock else "")
    row = tx.one(sql, {"id": id})
    return None if row is None else _item(row)


def first(tx: Tx, queue: str, key: str, *, lock: bool = False) -> Item | None:
    """The item of a key that comes first."""
    sql = (
        f"SELECT {_COLUMNS} FROM work WHERE queue = :queue AND key = :key ORDER BY seq, id LIMIT 1"
    )
    row = tx.one(sql + (tx.for_update if lock else ""), {"queue": queue, "key": key})
    return None if row is None else _item(row)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which items are meant: those that pass all of it."""

    state: State | None
    """None: any."""
    queue: str
    """Empty: any."""
    created_before: float
    """Unix seconds."""
    error: str
    """A part of the last error; empty: any."""
    ids: Sequence[str] = ()
    """Empty: any."""
    keys: Sequence[str] = ()
    """Empty: any."""

    def where(self, tx: Tx) -> tuple[list[str], dict[str, object]]:
        """The conditions, and their parameters."""
        conditions = ["created_at <= :created_before"]
        params: dict[str, object] = {"created_before": self.created_before}
        if self.state is not None:
            conditions.append(WHERE[self.state])
        if self.queue:
            conditions.append("queue = :queue")
            params["queue"] = self.queue
        if self.error:
            last, find = _LAST_ERROR[tx.postgres]
            conditions.append(f"{find}({last}, :error) > 0")
            params["error"] = self.error
        for column, wanted in (("id", self.ids), ("key", self.keys)):
            if wanted:
                names, values = among(column, wanted)
                conditions.append(f"{column} IN ({names})")
                params |= values
        return conditions, params


def page(tx: Tx, asked: Page, wanted: Wanted, most: int | None = None) -> tuple[list[Item], str]:
    """A page of items, oldest first and `most` at most, and the token of the next."""
    where, params = wanted.where(tx)
    fitting = None if most is None else lambda _: most
    rows, token = asked.read(
        tx, f"SELECT {_COLUMNS} FROM work", "id", *where, params=params, fitting=fitting
    )
    return [_item(row) for row in rows], token


def count(tx: Tx, wanted: Wanted) -> int:
    """How many there are."""
    where, params = wanted.where(tx)
    found: int = tx.value(f"SELECT COUNT(*) FROM work WHERE {' AND '.join(where)}", params)
    return found


def firsts(tx: Tx, queues: Sequence[str], keys: Sequence[str]) -> dict[str, Item]:
    """By key the item that comes first, of those that have any."""
    (queue_names, by_queue), (key_names, by_key) = among("queue", queues), among("key", keys)
    if not queues or not keys:
        return {}
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM work WHERE queue IN ({queue_names}) AND key IN ({key_names})"
        " ORDER BY seq DESC, id DESC",
        {**by_queue, **by_key},
    )
    return {row["key"]: _item(row) for row in rows}


def payload(tx: Tx, id: str) -> bytes:  # noqa: A002
    """What the handler of an item is given."""
    return tx.value("SELECT payload FROM work WHERE id = :id", {"id": id}) or b""


def behind(tx: Tx, item: Item) -> int:
    """How many items of its key wait behind an item."""
    waiting: int = tx.value(
        "SELECT COUNT(*) FROM work WHERE queue = :queue AND key = :key AND (seq, id) > (:seq, :id)",
        {"queue": item.queue, "key": item.key, "seq": item.seq, "id": item.id},
    )
    return waiting


def _item(row: Row) -> Item:
    values: dict[str, Any] = {
        **row,
        "state": State.LEASED if row["lease_until"] else State(row["state"]),
        "history": json.loads(row["history"]),
        "trace": json.loads(row["trace"]),
    }
    return Item(**values)
