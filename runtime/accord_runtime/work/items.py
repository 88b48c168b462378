"""What an operator sees of the table of work: items by state and age, each with its failures."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from accord_runtime.database import Row, Tx
from accord_runtime.grpc.page_tokens import Page


class State(StrEnum):
    """Where an item stands; the names are the contract's."""

    READY = "ready"
    PARKED = "parked"
    LEASED = "leased"


_WHERE: Final = {
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


def page(
    tx: Tx, asked: Page, *, state: State | None, queue: str, created_before: float
) -> tuple[list[Item], str]:
    """A page of items, oldest first, and the token of the next; of any queue if it is ""."""
    rows, token = asked.read(
        tx,
        f"SELECT {_COLUMNS} FROM work",
        "id",
        "created_at <= :created_before",
        *([] if state is None else [_WHERE[state]]),
        params={"created_before": created_before},
        equal={"queue": queue},
    )
    return [_item(row) for row in rows], token


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
