"""One durable executor for all background work of a service.

Work is a row of one table: handlers of received events, saga steps, timers and
mails alike. Rows of one (queue, key) run one after the other, in order; rows of
different keys run in parallel. A row is *leased* while it is worked on, so that
it is found again when its process dies. What a handler wants to write it
returns as an `Effect`, which commits together with the completion of the row:
handlers may run twice, their effects happen once.

A failing row is tried again after its queue's delays - later, if the failure
itself says when to come back - and is then *parked*, the rows behind it with
it, until an operator retries or discards it. Other keys go on.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from accord.errors import failure_of
from accord.telemetry import trace_headers, use_trace
from accord_runtime.database import Database, DatabaseError, Tx
from accord_runtime.grpc.ids import uuid7

log = logging.getLogger(__name__)

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

DELAYS: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry: at once, 1, 2, 4 and 8 s later; then parked."""

MAX_TOLD: Final = 60.0
"""Seconds up to which a failure is believed that says when to come back."""

POLL: Final = 1.0
"""Seconds after which the table is looked at even if nobody said that it changed."""

HISTORY: Final = 10
"""Failures that are remembered per row."""

_LEASE_RESERVE: Final = 5.0

Effect = Callable[[Tx], None]
"""What a handler wants to write, in the transaction that completes its work."""


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


Handler = Callable[[Work], Awaitable[Effect | None]]


class Permanent(Exception):
    """Raised by a handler when no retry can help: the work is parked at once."""


class LeaseLost(Exception):
    """The work took longer than its lease and belongs to somebody else now."""


@dataclass(frozen=True, slots=True)
class Queue:
    """How the work of one kind is done."""

    name: str
    handler: Handler
    delays: Sequence[float] = DELAYS
    """Seconds before each retry; as many retries as there are delays."""
    concurrency: int = 16
    """Rows worked on at once by this process."""
    timeout: float = 30.0
    """Seconds that a handler may take."""


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
    work = Work(
        id=uuid7(),
        queue=queue,
        key=key,
        payload=payload,
        attempts=0,
        created_at=now,
        lease_until=now + lease if lease else 0.0,
        trace=json.dumps(trace_headers()),
    )
    tx.execute(
        "INSERT INTO work (id, queue, key, seq, payload, state, due_at, attempts, owner,"
        " lease_until, history, trace, created_at) VALUES (:id, :queue, :key, :seq, :payload,"
        " 'ready', :due_at, 0, :owner, :lease_until, '[]', :trace, :now)",
        {
            "id": work.id,
            "queue": queue,
            "key": key,
            "seq": seq,
            "payload": payload,
            "due_at": now if due_at is None else due_at,
            "owner": owner,
            "lease_until": work.lease_until,
            "trace": work.trace,
            "now": now,
        },
    )
    return work


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


def claim(tx: Tx, queue: Queue, owner: str, now: float, most: int) -> list[Work]:
    """Lease up to `most` rows of a queue that may run now."""
    lease_until = now + queue.timeout + _LEASE_RESERVE
    if tx.postgres:
        # One at a time: who does not see another's lease could take a second row of its key.
        tx.execute(
            "SELECT pg_advisory_xact_lock(hashtext(current_schema()), hashtext(:queue))",
            {"queue": queue.name},
        )
    rows = tx.all(
        _READY + tx.skip_locked.replace("UPDATE", "UPDATE OF w"),
        {"now": now, "queue": queue.name, "most": most},
    )
    for row in rows:
        tx.execute(
            "UPDATE work SET owner = :owner, lease_until = :lease_until WHERE id = :id",
            {"owner": owner, "lease_until": lease_until, "id": row["id"]},
        )
    return [Work(**dict(row), lease_until=lease_until) for row in rows]


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
        if tx.one(
            "SELECT 1 AS found FROM work WHERE queue = :queue AND state = 'ready'"
            " AND due_at <= :now AND lease_until <= :now LIMIT 1",
            values,
        ):
            due.append(queue)
        later = tx.one(
            "SELECT MIN(due_at) AS due_at FROM work WHERE queue = :queue AND state = 'ready'"
            " AND due_at > :now",
            values,
        )
        if later is not None and later["due_at"] is not None:
            next_due = min(next_due, float(later["due_at"]))
    return due, next_due


class Executor:
    """Runs the work of one service process.

    Args:
        database: the service's own.
        owner: this process among all that share the database; the same again
            after a restart, so that it finds what it had leased before.
        clock: Unix time in seconds.
    """

    def __init__(
        self, database: Database, owner: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._running: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._draining = False
        self._taken_back = False

    def register(
        self,
        queue: str,
        handler: Handler,
        *,
        delays: Sequence[float] = DELAYS,
        concurrency: int = 16,
        timeout: float = 30.0,
    ) -> None:
        """Say how the work of a queue is done; see `Queue` for the arguments."""
        if queue in self._queues:
            raise ValueError(f"queue {queue!r} has a handler already")
        self._queues[queue] = Queue(queue, handler, tuple(delays), concurrency, timeout)
        self._running[queue] = 0

    def enqueue(
        self,
        tx: Tx,
        queue: str,
        key: str,
        payload: bytes = b"",
        *,
        due_at: float | None = None,
        seq: int = 0,
    ) -> None:
        """Add work in a transaction; it starts after the commit, or at `due_at`.

        Args:
            tx: the transaction whose outcome the work depends on.
            queue: a registered queue.
            key: what the work is serialised by.
            payload: what to do.
            due_at: not before this time, Unix seconds.
            seq: order among the rows of a key; rows of equal `seq` run as enqueued.

        Raises:
            ValueError: nobody has registered the queue.
        """
        if queue not in self._queues:
            raise ValueError(f"queue {queue!r} has no handler")
        enqueue(tx, queue, key, payload, now=self._clock(), due_at=due_at, seq=seq)
        tx.after_commit(self.wake)

    def enqueue_held(self, tx: Tx, queue: str, key: str, payload: bytes = b"") -> Work:
        """Add work that this process will `run` itself, right after the commit.

        If it does not live to do so, the work is found like any other. The key must be new: held
        work does not wait for other rows of its key.
        """
        lease = self._queues[queue].timeout + _LEASE_RESERVE
        return enqueue(tx, queue, key, payload, now=self._clock(), owner=self._owner, lease=lease)

    def wake(self) -> None:
        """Look at the table now."""
        self._wake.set()

    async def run(self, work: Work) -> None:
        """Do held work in the caller's own context (deadline, trace).

        Goes on to its end even when the caller is cancelled.

        Raises:
            Exception: whatever the handler raised; the work will be tried again.
        """
        task = asyncio.create_task(self._attempt(self._queues[work.queue], work, held=True))
        self._keep(task)
        await asyncio.shield(task)

    async def take_back(self) -> None:
        """Find again what an earlier life of this process had leased; before anything is held."""
        await self._database.write(lambda tx: take_back(tx, self._owner))
        self._taken_back = True

    async def serve(self) -> None:
        """Work until cancelled."""
        if not self._taken_back:
            await self.take_back()
        while True:
            self._wake.clear()
            try:
                pause = await self._round()
            except DatabaseError as error:
                log.warning("work could not be claimed: %s", error)
                pause = POLL
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def drain(self, patience: float | None = None) -> None:
        """Start nothing more and wait for what is running.

        What takes longer than `patience` seconds is cut off; the next life of this process finds
        it at once.
        """
        self._draining = True
        async with self._looking:
            pass  # What was being claimed is running now.
        while self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for task in late:
                task.cancel()

    async def _round(self) -> float:
        """Start what may run; return the seconds until the next look."""
        async with self._looking:
            if self._draining:
                return POLL
            now = self._clock()
            free = {
                name: queue.concurrency - self._running[name]
                for name, queue in self._queues.items()
                if self._running[name] < queue.concurrency
            }
            # Reading first keeps an idle look from being a write transaction.
            due, next_due = await self._database.read(lambda tx: look(tx, list(free), now))
            if due:
                claimed = await self._database.write(
                    lambda tx: [
                        work
                        for name in due
                        for work in claim(tx, self._queues[name], self._owner, now, free[name])
                    ]
                )
                for work in claimed:
                    self._start(work)
            return min(POLL, max(0.0, next_due - now))

    def _start(self, work: Work) -> None:
        self._running[work.queue] += 1
        coroutine = self._work(self._queues[work.queue], work)
        self._keep(asyncio.create_task(coroutine, name=f"{work.queue}:{work.key}"))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Was told to the caller of run(), who may be gone.

    async def _work(self, queue: Queue, work: Work) -> None:
        try:
            with use_trace(json.loads(work.trace)):
                await self._attempt(queue, work)
        except Exception as error:
            log.debug("%s %s failed: %s", work.queue, work.key, error)
        finally:
            self._running[queue.name] -= 1
            self.wake()

    async def _attempt(self, queue: Queue, work: Work, *, held: bool = False) -> None:
        try:
            effect = await _handle(queue, work)
            await self._database.write(lambda tx: complete(tx, work, self._owner, effect))
        except LeaseLost:
            log.warning("%s %s took longer than its lease, or was taken away", work.queue, work.key)
        except Exception as error:
            await self._failed(queue, work, error)
            if held:
                raise

    async def _failed(self, queue: Queue, work: Work, error: Exception) -> None:
        text = _in_words(error)
        now = self._clock()
        final = isinstance(error, Permanent) or work.attempts >= len(queue.delays)
        retry_at = now if final else now + max(queue.delays[work.attempts], _told(error))
        if final:
            log.error("%s %s is parked: %s", work.queue, work.key, text)
        else:
            log.info("%s %s will be tried again: %s", work.queue, work.key, text)

        def write(tx: Tx) -> None:
            row = tx.one("SELECT history FROM work WHERE id = :id", {"id": work.id})
            history = json.loads(row["history"]) if row else []
            history = [*history, {"at": now, "attempt": work.attempts + 1, "error": text}]
            tx.execute(
                "UPDATE work SET state = :state, attempts = :attempts, due_at = :due_at,"
                " lease_until = 0, history = :history"
                " WHERE id = :id AND owner = :owner AND lease_until = :lease_until",
                {
                    "state": "parked" if final else "ready",
                    "attempts": work.attempts + 1,
                    "due_at": retry_at,
                    "history": json.dumps(history[-HISTORY:]),
                    "id": work.id,
                    "owner": self._owner,
                    "lease_until": work.lease_until,
                },
            )
            tx.after_commit(self.wake)

        try:
            await self._database.write(write)
        except DatabaseError as problem:
            # The lease runs out by itself, and the work is found again.
            log.warning("a failure of %s %s could not be noted: %s", queue.name, work.key, problem)


async def _handle(queue: Queue, work: Work) -> Effect | None:
    try:
        async with asyncio.timeout(queue.timeout):
            return await queue.handler(work)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not this task was cancelled but something that the handler waited for.
        raise RuntimeError("the handler was cancelled") from error


def _told(error: Exception) -> float:
    """Seconds that a failure asks to wait: an open breaker or a busy server would only refuse."""
    failure = failure_of(error)
    if failure is None or failure.retry_after is None:
        return 0.0
    return min(max(0.0, failure.retry_after), MAX_TOLD)


def _in_words(error: Exception) -> str:
    """What an operator reads of a failure: one line of at most 500 characters."""
    failure = failure_of(error)
    if failure is None:
        text = f"{type(error).__name__}: {error}"
    else:
        text = f"{failure.code.name}: {failure.message}"
        if failure.reason != failure.code.name:
            text = f"{failure.reason}, {text}"
    return " ".join(text.split())[:500]


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


@dataclass(frozen=True, slots=True)
class Parked:
    """A row that waits for an operator."""

    id: str
    queue: str
    key: str
    attempts: int
    history: str
    trace: str
    created_at: float


def parked(tx: Tx, *, after: str = "", most: int = 100) -> list[Parked]:
    """The parked rows, oldest first, beginning after an id."""
    rows = tx.all(
        "SELECT id, queue, key, attempts, history, trace, created_at FROM work"
        " WHERE state = 'parked' AND id > :after ORDER BY id LIMIT :most",
        {"after": after, "most": most},
    )
    return [Parked(**dict(row)) for row in rows]


def unpark(tx: Tx, id: str, now: float) -> bool:  # noqa: A002
    """Try a parked or waiting row now, from its first attempt. False when there is none."""
    return (
        tx.execute(
            "UPDATE work SET state = 'ready', attempts = 0, due_at = :now"
            " WHERE id = :id AND lease_until <= :now",
            {"id": id, "now": now},
        )
        > 0
    )


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
