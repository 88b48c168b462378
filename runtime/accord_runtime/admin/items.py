"""The table of work as an operator sees it."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from accord.ops.v1 import work_pb2 as pb
from accord_runtime.admin.stamps import stamp
from accord_runtime.database import Row, Tx


class State(StrEnum):
    """Where an item stands; the names are the contract's."""

    READY = "ready"
    PARKED = "parked"
    LEASED = "leased"


_WHERE: Final = {
    State.READY: "state = 'ready' AND lease_until <= :now",
    State.PARKED: "state = 'parked'",
    State.LEASED: "state = 'ready' AND lease_until > :now",
}

_COLUMNS: Final = (
    "id, queue, key, seq, state, due_at, attempts, owner, lease_until, history, trace, created_at"
)


@dataclass(frozen=True, slots=True)
class Item:
    """A row of work."""

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

    def message(self) -> pb.WorkItem:
        """This item in the contract's words."""
        return pb.WorkItem(
            work_id=self.id,
            queue=self.queue,
            key=self.key,
            state=pb.WorkState.Value(f"WORK_STATE_{self.state.name}"),
            attempts=self.attempts,
            due_at=stamp(self.due_at),
            created_at=stamp(self.created_at),
            last_error=self.last_error,
        )


def find(tx: Tx, id: str, now: float, *, lock: bool = False) -> Item | None:  # noqa: A002
    """The item with this id; `lock` keeps it as it is until the commit."""
    sql = f"SELECT {_COLUMNS} FROM work WHERE id = :id" + (tx.for_update if lock else "")
    row = tx.one(sql, {"id": id})
    return None if row is None else _item(row, now)


def first(tx: Tx, queue: str, key: str, now: float, *, lock: bool = False) -> Item | None:
    """The item of a key that comes first."""
    sql = (
        f"SELECT {_COLUMNS} FROM work WHERE queue = :queue AND key = :key ORDER BY seq, id LIMIT 1"
    )
    row = tx.one(sql + (tx.for_update if lock else ""), {"queue": queue, "key": key})
    return None if row is None else _item(row, now)


def page(
    tx: Tx,
    *,
    after: str,
    most: int,
    state: State | None,
    queue: str,
    created_before: float,
    now: float,
) -> list[Item]:
    """Up to `most` items, oldest first, beginning after an id; of any queue if it is ""."""
    where = ["id > :after", "created_at <= :created_before"]
    if state is not None:
        where.append(_WHERE[state])
    if queue:
        where.append("queue = :queue")
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM work WHERE {' AND '.join(where)} ORDER BY id LIMIT :most",
        {
            "after": after,
            "created_before": created_before,
            "queue": queue,
            "now": now,
            "most": most,
        },
    )
    return [_item(row, now) for row in rows]


def payload(tx: Tx, id: str) -> bytes:  # noqa: A002
    """What the handler of an item is given."""
    row = tx.one("SELECT payload FROM work WHERE id = :id", {"id": id})
    return b"" if row is None else bytes(row["payload"])


def behind(tx: Tx, item: Item) -> int:
    """How many items of its key wait behind an item."""
    row = tx.one(
        "SELECT COUNT(*) AS waiting FROM work WHERE queue = :queue AND key = :key"
        " AND (seq, id) > (:seq, :id)",
        {"queue": item.queue, "key": item.key, "seq": item.seq, "id": item.id},
    )
    return 0 if row is None else int(row["waiting"])


def _item(row: Row, now: float) -> Item:
    leased = row["state"] == State.READY and row["lease_until"] > now
    values: dict[str, Any] = {
        **row,
        "state": State.LEASED if leased else State(row["state"]),
        "history": json.loads(row["history"]),
        "trace": json.loads(row["trace"]),
    }
    return Item(**values)
