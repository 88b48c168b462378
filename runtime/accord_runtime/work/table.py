"""The table of work: what is written into it and read from it, all within transactions.

A row is ready, leased (ready, and in the hands of a process), or parked. `due_at` is when it may
run, and its place among what may run already: there it is the time at which its flow began.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from accord import trace_headers
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import uuid7

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

FLOW_MIGRATIONS: Final = [
    # NULL: written by the version before, and served by `due_at` alone.
    "ALTER TABLE work ADD COLUMN flow_at DOUBLE PRECISION",
    # With the id, for all work of a flow is due at one time.
    "CREATE INDEX work_turn ON work (queue, state, due_at, id)",
    "DROP INDEX work_due",
    "CREATE INDEX work_later ON work (queue, state, due_at) WHERE due_at > flow_at",
]

HISTORY: Final = 10
"""Failures that are remembered per row."""

DEATHS: Final = (0.0, 1.0, 2.0, 4.0)
"""Seconds before a row runs again whose process died, the first time and so on; then parked."""

COME_DUE: Final = 1000
"""Rows at most that a claim gives their place among what may run."""

SUSPECT: Final = 2
"""Deaths from which on a row runs only when no other such row does: one of them does the killing,
and those that died with it would be counted with it for ever."""

_DIED = "its process died while it was at work, or before it began"

current_flow: Final[ContextVar[float | None]] = ContextVar("current_flow", default=None)
"""When the flow of the work at hand began, Unix seconds; what is enqueued belongs to it."""

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
    flow_at: float
    """When the flow began that it belongs to, Unix seconds."""
    lease_until: float
    """Until when it must have ended, Unix seconds."""
    deaths: int
    """How often its process has died while it was at work, since it last came to an end."""
    trace: str
    """Trace context of whoever enqueued it, as JSON."""
    newest: bool = False
    """Whether it was leased for being of one of the newest flows."""

    @property
    def headers(self) -> dict[str, str]:
        """The trace context as W3C headers."""
        return dict(json.loads(self.trace))

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills its process."""
        return self.deaths >= SUSPECT


@dataclass(frozen=True, slots=True)
class Share:
    """What one group of keys may have of a queue's places, so that it leaves some to the others."""

    prefix: int
    """Characters at the beginning of a key that name its group."""
    most: int
    """Rows of one group that a process works on at once."""
    taken: Counter[str] = field(default_factory=Counter, compare=False)
    """How many each group has."""

    def take(self, key: str) -> bool:
        """Count a row for its group; False if that may have no more."""
        group = key[: self.prefix]
        if self.taken[group] >= self.most:
            return False
        self.taken[group] += 1
        return True

    def others(self) -> tuple[str, dict[str, object]]:
        """The condition for rows of groups that may have more, and its parameters."""
        full = [group for group, count in self.taken.items() if count >= self.most]
        names: dict[str, object] = {f"full{number}": group for number, group in enumerate(full)}
        among = ", ".join(f":{name}" for name in names)
        return (f"AND substr(key, 1, {self.prefix}) NOT IN ({among})" if names else ""), names


def enqueue(
    tx: Tx,
    queue: str,
    key: str,
    payload: bytes = b"",
    *,
    now: float,
    due_at: float | None = None,
    flow_at: float | None = None,
    seq: int = 0,
    owner: str = "",
    lease: float = 0.0,
    parked: str = "",
) -> Work:
    """Write a row of work. `Executor.enqueue` does so and wakes the executor too.

    `parked`: why it is for the operator from the beginning.
    """
    if flow_at is None:
        flow_at = current_flow.get()
    # A flow cannot begin later than now; another's clock may be ahead.
    flow_at = now if flow_at is None else min(flow_at, now)
    row: Row = {
        "id": uuid7(),
        "queue": queue,
        "key": key,
        "seq": seq,
        "payload": payload,
        "state": "parked" if parked else "ready",
        "due_at": flow_at if due_at is None else due_at,
        "attempts": 0,
        "owner": owner,
        "lease_until": now + lease if lease else 0.0,
        "history": noted("[]", now, 0, parked[:500]) if parked else "[]",
        "trace": json.dumps(trace_headers()),
        "created_at": now,
        "flow_at": flow_at,
        "deaths": 0,
    }
    tx.insert("work", row)
    return Work(**{name: row[name] for name in Work.__slots__ if name in row})


# The first row of its key, due, and no row of its key in work.
READY: Final = f"""
    SELECT id, queue, key, payload, attempts, deaths, trace, created_at,
    COALESCE(flow_at, created_at) AS flow_at FROM work AS w
    WHERE state = 'ready' AND due_at <= :now AND lease_until = 0 AND queue = :queue
    AND (deaths >= {SUSPECT}) = :suspects %(others)s
    AND NOT EXISTS (
        SELECT 1 FROM work AS b WHERE b.queue = w.queue AND b.key = w.key AND b.id <> w.id
        AND ((b.seq, b.id) < (w.seq, w.id) OR b.lease_until > 0)
    )
    ORDER BY due_at %(order)s, id %(order)s LIMIT :most
"""

# Whether there are any. SQLite takes the index of those with deaths only by its own condition.
SUSPECTS: Final = f"SELECT 1 FROM work WHERE deaths > 0 AND deaths >= {SUSPECT} LIMIT 1"

# What has become due takes its place. Rows that another transaction has locked follow later.
_COME_DUE: Final = """
    UPDATE work SET due_at = flow_at WHERE id IN (
        SELECT id FROM work
        WHERE queue = :queue AND state = 'ready' AND due_at > flow_at AND due_at <= :now
        ORDER BY due_at LIMIT :most%s
    )
"""


def claim(
    tx: Tx,
    queue: str,
    owner: str,
    now: float,
    oldest: int,
    newest: int = 0,
    *,
    lease: float,
    suspects: bool = False,
    share: Share | None = None,
) -> list[Work]:
    """Lease rows of a queue that may run now, for `lease` seconds.

    Up to `oldest`, by the age of their flows; if there are more, up to `newest` of the newest ones.
    `suspects`: those that may be what kills their process, and no others. `share`: no group gets
    more than that; what it gets is counted there.
    """
    lease_until = now + lease
    if tx.postgres:
        # One at a time: who does not see another's lease could take a second row of its key.
        tx.execute(
            "SELECT pg_advisory_xact_lock(hashtext(current_schema()), hashtext(:queue))",
            {"queue": queue},
        )
    tx.execute(_COME_DUE % tx.skip_locked, {"queue": queue, "now": now, "most": COME_DUE})
    claimed: list[Work] = []
    for order, most in (("ASC", oldest), ("DESC", newest)):
        if not most or (order == "DESC" and len(claimed) < oldest):
            continue  # No place, or nothing more.
        places, passed_over = most, True
        while places and passed_over:
            passed_over = False
            others, full = share.others() if share else ("", {})
            rows = tx.all(
                READY % {"order": order, "others": others}
                + tx.skip_locked.replace("UPDATE", "UPDATE OF w"),
                {"now": now, "queue": queue, "most": places, "suspects": suspects, **full},
            )
            for row in rows:
                if share and not share.take(row["key"]):
                    passed_over = True  # There may be others behind it.
                    continue
                places -= 1
                tx.execute(
                    "UPDATE work SET owner = :owner, lease_until = :lease_until WHERE id = :id",
                    {"owner": owner, "lease_until": lease_until, "id": row["id"]},
                )
                claimed.append(Work(**row, lease_until=lease_until, newest=order == "DESC"))
    return claimed


def abandoned(tx: Tx, row: Row, now: float) -> bool:
    """Count the death of a row's process; the row is tried again, or parked. True if parked.

    In the transaction that found the row, by `ownership.lost`.
    """
    deaths: int = row["deaths"] + 1
    parked = deaths > len(DEATHS)
    tx.execute(
        "UPDATE work SET state = :state, deaths = :deaths, due_at = :due_at, lease_until = 0,"
        " history = :history WHERE id = :id",
        {
            "state": "parked" if parked else "ready",
            "deaths": deaths,
            "due_at": now if parked else now + DEATHS[deaths - 1],
            "history": noted(row["history"], now, row["attempts"] + deaths, _DIED),
            "id": row["id"],
        },
    )
    return parked


_TOO_LONG: Final = " WHERE queue = :queue AND state = 'ready' AND due_at > :far AND lease_until = 0"


def waits_too_long(tx: Tx, queue: str, now: float, longest: float) -> bool:
    """Whether some row waits longer than its queue lets it: a clock was ahead."""
    found = tx.one(f"SELECT 1 FROM work{_TOO_LONG}", {"queue": queue, "far": now + longest})
    return found is not None


def bring_forward(tx: Tx, queue: str, now: float, longest: float) -> int:
    """Make due what waits too long, and return how many these are."""
    return tx.execute(
        f"UPDATE work SET due_at = :now{_TOO_LONG}",
        {"queue": queue, "now": now, "far": now + longest},
    )


_FIRST: Final = (
    "SELECT due_at FROM work WHERE queue = :queue AND state = 'ready' AND lease_until = 0"
    " ORDER BY due_at LIMIT 1"
)
_LATER: Final = (
    "SELECT MIN(due_at) FROM work WHERE queue = :queue AND state = 'ready' AND due_at > :now"
)


def look(tx: Tx, queues: Sequence[str], now: float) -> tuple[list[str], dict[str, float]]:
    """Which of these queues may have work that can run now, and when more of each becomes due."""
    due: list[str] = []
    later: dict[str, float] = {}
    for queue in queues:
        values = {"queue": queue, "now": now}
        first = tx.value(_FIRST, values)
        if first is not None and first <= now:
            due.append(queue)
            first = tx.value(_LATER, values)
        if first is not None:
            later[queue] = first
    return due, later


def waits(tx: Tx, queue: str, key: str) -> bool:
    """Whether there is work of a key, parked or being done."""
    sql = "SELECT 1 FROM work WHERE queue = :queue AND key = :key LIMIT 1"
    return tx.one(sql, {"queue": queue, "key": key}) is not None


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
    history = tx.value("SELECT history FROM work WHERE id = :id", {"id": work.id}) or "[]"
    tx.execute(
        "UPDATE work SET state = :state, attempts = :attempts, due_at = :due_at,"
        " lease_until = 0, deaths = 0, history = :history"
        " WHERE id = :id AND owner = :owner AND lease_until = :lease_until",
        {
            "state": "parked" if retry_at is None else "ready",
            "attempts": work.attempts + 1,
            "due_at": now if retry_at is None else retry_at,
            "history": noted(history, now, work.attempts + 1, error),
            "id": work.id,
            "owner": owner,
            "lease_until": work.lease_until,
        },
    )


def noted(history: str, at: float, attempt: int, error: str) -> str:
    """A history with one more failure."""
    failures = [*json.loads(history), {"at": at, "attempt": attempt, "error": error}]
    return json.dumps(failures[-HISTORY:])


def unpark(tx: Tx, id: str, now: float) -> bool:  # noqa: A002
    """Try a parked or waiting row now, from its first attempt. False when there is none."""
    unparked = tx.execute(
        "UPDATE work SET state = 'ready', attempts = 0, due_at = :now"
        " WHERE id = :id AND lease_until = 0",
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
