"""The table of work: what is written into it and read from it, all within transactions.

A row is ready, leased (ready, with a lease that has not run out), or parked.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from accord import trace_headers
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page

MIGRATIONS: Final = [
    """
    CREATE TABLE work (
        id TEXT NOT NULL PRIMARY KEY,
        queue TEXT NOT NULL,
        key TEXT NOT NULL,
        seq BIGINT NOT NULL,
        payload BLOB NOT NULL,
        state TEXT NOT NULL,
        due_at DOUBLE PRECISION NOT NULL,
        attempts BIGINT NOT NULL,
        owner TEXT NOT NULL,
        lease_until DOUBLE PRECISION NOT NULL,
        history TEXT NOT NULL,
        trace TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX work_key ON work (queue, key, seq, id)",
    "CREATE INDEX work_due ON work (queue, state, due_at)",
]

HISTORY: Final = 10
"""Failures that are remembered per row."""

Effect = Callable[[Tx], None]
"""What a handler wants to write, in the transaction that completes its work."""


class LeaseLost(Exception):
    """The work took longer than its lease and belongs to somebody else now."""


@dataclass(frozen=True, slots=True)
class Work:
    """One row of work, as its handler sees it."""

    id: str
    """UUIDv7."""
    queue: str
    """Whose handler runs it."""
    key: str
    """Rows with the same queue and key run one after the other."""
    payload: bytes
    """What to do."""
    attempts: int
    """How often it has failed before."""
    created_at: float
    """When it was enqueued, Unix seconds."""
    lease_until: float
    """When another process may take it over, Unix seconds."""
    trace: str
    """Trace context of whoever enqueued it, as JSON."""


def enqueue(
    tx: Tx,
    queue: str,
    key: str,
    payload: bytes = b"",
    *,
    now: float,
    due_at: float | None = None,
    seq: int = 0,
    owner: str = "",
    lease: float = 0.0,
) -> Work:
    """Write a row of work. `Executor.enqueue` does so and wakes the executor too."""
    row: Row = {
        "id": uuid7(),
        "queue": queue,
        "key": key,
        "seq": seq,
        "payload": payload,
        "state": "ready",
        "due_at": now if due_at is None else due_at,
        "attempts": 0,
        "owner": owner,
        "lease_until": now + lease if lease else 0.0,
        "history": "[]",
        "trace": json.dumps(trace_headers()),
        "created_at": now,
    }
    tx.insert("work", row)
    return Work(**{name: row[name] for name in Work.__slots__})


# The first row of its key, due, and no row of its key in work.
_READY: Final = """
    SELECT id, queue, key, payload, attempts, trace, created_at FROM work AS w
    WHERE state = 'ready' AND due_at <= :now AND lease_until <= :now AND queue = :queue
    AND NOT EXISTS (
        SELECT 1 FROM work AS b WHERE b.queue = w.queue AND b.key = w.key AND b.id <> w.id
        AND ((b.seq, b.id) < (w.seq, w.id) OR b.lease_until > :now)
    )
    ORDER BY due_at, id LIMIT :most
"""


def claim(tx: Tx, queue: str, owner: str, now: float, most: int, *, lease: float) -> list[Work]:
    """Lease up to `most` rows of a queue that may run now, for `lease` seconds."""
    lease_until = now + lease
    if tx.postgres:
        # One at a time: who does not see another's lease could take a second row of its key.
        tx.execute(
            "SELECT pg_advisory_xact_lock(hashtext(current_schema()), hashtext(:queue))",
            {"queue": queue},
        )
    rows = tx.all(
        _READY + tx.skip_locked.replace("UPDATE", "UPDATE OF w"),
        {"now": now, "queue": queue, "most": most},
    )
    for row in rows:
        tx.execute(
            "UPDATE work SET owner = :owner, lease_until = :lease_until WHERE id = :id",
            {"owner": owner, "lease_until": lease_until, "id": row["id"]},
        )
    return [Work(**row, lease_until=lease_until) for row in rows]


def take_back(tx: Tx, owner: str) -> int:
    """End all leases of an owner that has died; return how many."""
    return tx.execute(
        "UPDATE work SET lease_until = 0 WHERE owner = :owner AND lease_until > 0",
        {"owner": owner},
    )


def look(tx: Tx, queues: Sequence[str], now: float) -> tuple[list[str], float]:
    """Which of these queues may have work that can run now, and when more becomes due."""
    due: list[str] = []
    next_due = math.inf
    for queue in queues:
        values = {"queue": queue, "now": now}
        if tx.value(
            "SELECT 1 FROM work WHERE queue = :queue AND state = 'ready'"
            " AND due_at <= :now AND lease_until <= :now LIMIT 1",
            values,
        ):
            due.append(queue)
        later = tx.value(
            "SELECT MIN(due_at) FROM work WHERE queue = :queue AND state = 'ready'"
            " AND due_at > :now",
            values,
        )
        if later is not None:
            next_due = min(next_due, later)
    return due, next_due


def complete(tx: Tx, work: Work, owner: str, effect: Effect | None) -> None:
    """Apply the effect of a row and remove it, in one transaction.

    The row is touched last, as in transactions that change state and then `expedite` its work:
    in the opposite order the two would wait for each other.

    Raises:
        LeaseLost: the row is not this process's any more; nothing is applied.
    """
    if effect is not None:
        effect(tx)
    removed = tx.execute(
        "DELETE FROM work WHERE id = :id AND owner = :owner AND lease_until = :lease_until",
        {"id": work.id, "owner": owner, "lease_until": work.lease_until},
    )
    if removed == 0:
        raise LeaseLost


def fail(tx: Tx, work: Work, owner: str, error: str, now: float, retry_at: float | None) -> None:
    """Write a failure down, and when the row is tried again; None parks it.

    Nothing happens to a row that is not this process's any more.
    """
    history = json.loads(
        tx.value("SELECT history FROM work WHERE id = :id", {"id": work.id}) or "[]"
    )
    history = [*history, {"at": now, "attempt": work.attempts + 1, "error": error}]
    tx.execute(
        "UPDATE work SET state = :state, attempts = :attempts, due_at = :due_at,"
        " lease_until = 0, history = :history"
        " WHERE id = :id AND owner = :owner AND lease_until = :lease_until",
        {
            "state": "parked" if retry_at is None else "ready",
            "attempts": work.attempts + 1,
            "due_at": now if retry_at is None else retry_at,
            "history": json.dumps(history[-HISTORY:]),
            "id": work.id,
            "owner": owner,
            "lease_until": work.lease_until,
        },
    )


def unpark(tx: Tx, id: str, now: float) -> bool:  # noqa: A002
    """Try a parked or waiting row now, from its first attempt. False when there is none."""
    unparked = tx.execute(
        "UPDATE work SET state = 'ready', attempts = 0, due_at = :now"
        " WHERE id = :id AND lease_until <= :now",
        {"id": id, "now": now},
    )
    return unparked > 0


def discard(tx: Tx, id: str) -> bool:  # noqa: A002
    """Give a parked row up. False when there is none."""
    return tx.execute("DELETE FROM work WHERE id = :id AND state = 'parked'", {"id": id}) > 0


def expedite(tx: Tx, queue: str, key: str, now: float) -> None:
    """Let the waiting rows of a key run now, and try its parked ones again from the beginning."""
    tx.execute(
        "UPDATE work SET attempts = CASE WHEN state = 'parked' THEN 0 ELSE attempts END,"
        " state = 'ready', due_at = :now WHERE queue = :queue AND key = :key",
        {"queue": queue, "key": key, "now": now},
    )


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
    tx: Tx, asked: Page, *, state: State | None, queue: str, created_before: float, now: float
) -> tuple[list[Item], str]:
    """A page of items, oldest first, and the token of the next; of any queue if it is ""."""
    rows, token = asked.read(
        tx,
        f"SELECT {_COLUMNS} FROM work",
        "id",
        "created_at <= :created_before",
        *([] if state is None else [_WHERE[state]]),
        params={"created_before": created_before, "now": now},
        equal={"queue": queue},
    )
    return [_item(row, now) for row in rows], token


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


def _item(row: Row, now: float) -> Item:
    leased = row["state"] == State.READY and row["lease_until"] > now
    values: dict[str, Any] = {
        **row,
        "state": State.LEASED if leased else State(row["state"]),
        "history": json.loads(row["history"]),
        "trace": json.loads(row["trace"]),
    }
    return Item(**values)
