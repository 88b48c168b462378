"""Sends the commands of a work queue: from the transaction that wants one to a process that has it.

A command stays in this database until the broker's consumer has moved beyond it, which it does when
a receiver has committed it. So whatever the broker loses before - its tail, the stream, its disk -
is published again from here, and what it never got waits here for its time.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import nats.errors
from google.protobuf.message import Message
from nats.js.api import PubAck
from opentelemetry import metrics
from opentelemetry.metrics import Observation

from accord import trace_headers
from accord.errors import ResourceExhausted
from accord.ops.v1.work_pb2 import QueueStatus
from accord_runtime.database import Database, Lock, Row, Tx
from accord_runtime.events.broker import Broker, abortable, persistently
from accord_runtime.events.notifier import POLL, wait
from accord_runtime.events.work_queue import WorkQueue
from accord_runtime.grpc.types import duration
from accord_runtime.ticks import until_next
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Queue
from accord_runtime.work.table import Effect, Work

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    """
    CREATE TABLE command (
        queue TEXT NOT NULL,
        id TEXT NOT NULL,
        level BIGINT NOT NULL,
        payload BLOB NOT NULL,
        trace TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        stream TEXT NOT NULL DEFAULT '',
        sequence BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (queue, id)
    )
    """,
    "CREATE INDEX command_next ON command (queue, sequence, level, id)",
]

SENT: Final = "command"
"""What the database's processes are told when one has a command to be sent."""

BATCH: Final = 100
"""Commands published at once."""

LOOK: Final = 1.0
"""Seconds between two looks at what was taken, while anything was not."""

ANSWER: Final = 5.0
"""Seconds for one exchange with the broker."""

RETRY: Final = 5.0
"""Seconds after which a refused caller may come back, at least; at most twice as many."""

_NEAR: Final = 0.9
"""Share of the bound from which commands are counted one by one."""
_BEHIND: Final = 100
"""What is known to wait may be as many behind, so small queues are counted each time."""


class CommandSender:
    """The sending side of a work queue, of all processes of a database."""

    def __init__(
        self, queue: WorkQueue, *, database: Database, broker: Broker, executor: Executor
    ) -> None:
        self._queue = queue
        self._database = database
        self._broker = broker
        self._expired = f"expired:{queue.name}"
        executor.register(Queue(self._expired, self._send_again))
        self._told = asyncio.Event()
        self._waiting, self._since = queue.max_messages, 0.0  # Not known yet.
        self._refused = self._late = 0
        self._seen = ("", 0)  # The stream's identity and end.
        self._problem = ""
        meter = metrics.get_meter("accord_runtime")
        name = {"queue": queue.name}
        for what, unit, text, read in (
            ("waiting", "{command}", "Commands nobody has taken.", lambda: self._waiting),
            ("oldest_age", "s", "Age of the oldest of them.", lambda: self._age()),
            ("refused", "{command}", "Commands refused by a full queue.", lambda: self._refused),
            ("expired", "{command}", "Commands the broker did not take.", lambda: self._late),
        ):
            observe = [lambda _, read=read: [Observation(read(), name)]]
            meter.create_observable_gauge(f"accord.queue.{what}", observe, unit, text)
        database.listen(SENT, self._told.set)

    def send(self, tx: Tx, command: Message, level: str | None = None) -> None:
        """Send a command, once the transaction has committed; `level`: by default the last.

        A command whose id is waiting already is the same one.

        Raises:
            ResourceExhausted: as many as may are waiting (QUEUE_FULL).
        """
        most = self._queue.max_messages
        if self._waiting >= _NEAR * most - _BEHIND and self._count(tx)[0] >= most:
            self._refused += 1
            text = f"{most} commands wait in the queue {self._queue.name}"
            raise ResourceExhausted("QUEUE_FULL", RETRY * random.uniform(1, 2), text)
        key: str = getattr(command, self._queue.key)
        place = self._queue.levels.index(level or self._queue.levels[-1])
        self._insert(tx, key, place, command.SerializeToString(deterministic=True))

    def _insert(self, tx: Tx, key: str, level: int, payload: bytes) -> None:
        now = time.time()
        row = {
            "queue": self._queue.name,
            "id": key,
            "level": level,
            "payload": payload,
            "trace": json.dumps(trace_headers()),
            "created_at": now,
            "expires_at": now + self._queue.ttl,
        }
        if tx.insert("command", row, on_conflict="DO NOTHING"):
            tx.after_commit(self._inserted)

    def _inserted(self) -> None:
        self._waiting += 1
        self._told.set()
        self._database.notify(SENT)

    async def serve(self) -> None:
        """Send until cancelled, whenever the broker is there."""
        await persistently(f"sending to the queue {self._queue.name}", self._hold)

    def status(self, tx: Tx) -> QueueStatus:
        """What waits to be taken."""
        waiting, since = self._count(tx)
        return QueueStatus(
            queue=f"outbox:{self._queue.name}",
            waiting=waiting,
            oldest_age=duration(max(0.0, time.time() - since)) if waiting else None,
            max_waiting=self._queue.max_messages,
            refused=self._refused,
            problem=self._problem if waiting else "",
        )

    async def _hold(self) -> None:
        async with self._database.exclusive(f"outbox:{self._queue.name}") as lock:
            while True:
                self._told.clear()
                self._waiting, self._since = await self._database.read(self._count)
                if not self._waiting:
                    await wait(self._told, until_next(POLL))
                    continue
                await self._database.write(lock.guard(self._park_expired))
                try:
                    async with asyncio.timeout(ANSWER):
                        await abortable(self._exchange(lock))
                except (OSError, TimeoutError, nats.errors.Error) as error:
                    self._blocked(str(error) or "the broker does not answer")
                    self._told.clear()
                await wait(self._told, LOOK)

    def _blocked(self, why: str) -> None:
        if why and not self._problem:
            log.warning("commands for the queue %s wait: %s", self._queue.name, why)
        self._problem = why

    async def _exchange(self, lock: Lock) -> None:
        """Forget what was taken, publish what was not yet, or not for good."""
        queue, jetstream = self._queue, await self._broker.jetstream()
        info = await queue.ensure(self._broker, jetstream)
        created, last = str(info.created), info.state.last_seq
        consumers = [await queue.consumer(jetstream, level) for level in queue.levels]
        floors = [each.ack_floor.stream_seq if each.ack_floor else 0 for each in consumers]
        settle = partial(self._settle, created=created, last=last, floors=floors)
        rows = await self._database.write(lock.guard(settle))
        publish = [
            jetstream.publish(
                queue.subject(queue.levels[row["level"]]),
                row["payload"],
                headers=self._headers(row),
                timeout=1,
            )
            for row in rows
        ]
        answers = await asyncio.gather(*publish, return_exceptions=True)
        acks = {
            row["id"]: answer
            for row, answer in zip(rows, answers, strict=True)
            if isinstance(answer, PubAck)
        }
        self._seen = (created, max([last, *(ack.seq for ack in acks.values())]))
        if acks:
            await self._database.write(lock.guard(partial(self._note, created=created, acks=acks)))
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        self._blocked(f"{failed[0]}" if failed else "")
        if len(rows) == BATCH and not failed:
            self._told.set()

    def _settle(self, tx: Tx, created: str, last: int, floors: Sequence[int]) -> list[Row]:
        known = {"queue": self._queue.name, "created": created, "last": last}
        for level, floor in enumerate(floors):
            tx.execute(
                "DELETE FROM command WHERE queue = :queue AND level = :level"
                " AND stream = :created AND sequence BETWEEN 1 AND :floor",
                {"queue": known["queue"], "created": created, "level": level, "floor": floor},
            )
        if created != self._seen[0] or last < self._seen[1]:
            tx.execute(
                "UPDATE command SET sequence = 0 WHERE queue = :queue AND sequence > 0"
                " AND (stream <> :created OR sequence > :last)",
                known,
            )
        return tx.all(
            "SELECT * FROM command WHERE queue = :queue AND sequence = 0"
            " ORDER BY level, id LIMIT :most",
            {"queue": self._queue.name, "most": BATCH},
        )

    def _note(self, tx: Tx, created: str, acks: dict[str, PubAck]) -> None:
        fresh = [ack.seq for ack in acks.values() if not ack.duplicate]
        if fresh:  # Who had such a sequence before was in a tail that is lost.
            tx.execute(
                "UPDATE command SET sequence = 0 WHERE queue = :queue AND sequence >= :first",
                {"queue": self._queue.name, "first": min(fresh)},
            )
        for key, ack in acks.items():
            tx.execute(
                "UPDATE command SET stream = :created, sequence = :sequence"
                " WHERE queue = :queue AND id = :id",
                {
                    "queue": self._queue.name,
                    "id": key,
                    "created": created,
                    "sequence": ack.seq,
                },
            )

    def _park_expired(self, tx: Tx) -> None:
        """Give to the operator what the broker did not take in time."""
        now = time.time()
        rows = tx.all(
            "SELECT * FROM command WHERE queue = :queue AND sequence = 0 AND expires_at <= :now",
            {"queue": self._queue.name, "now": now},
        )
        self._late += len(rows)
        for row in rows:
            why = f"expired after {self._queue.ttl:g} s, before the broker took it"
            why += f": {self._problem}" if self._problem else ""
            payload = bytes([row["level"]]) + row["payload"]
            table.enqueue(tx, self._expired, row["id"], payload, now=now, parked=why)
            tx.execute(
                "DELETE FROM command WHERE queue = :queue AND id = :id",
                {"queue": row["queue"], "id": row["id"]},
            )

    async def _send_again(self, work: Work) -> Effect:
        """What an operator does with an expired command: it has all its time again."""
        return lambda tx: self._insert(tx, work.key, work.payload[0], work.payload[1:])

    def _headers(self, row: Row) -> dict[str, str]:
        moment: dict[str, Any] = {
            name: datetime.fromtimestamp(row[column], UTC).isoformat()
            for name, column in (("ce-time", "created_at"), ("ce-expirytime", "expires_at"))
        }
        return {
            "Nats-Msg-Id": row["id"],
            "ce-specversion": "1.0",
            "ce-id": row["id"],
            "ce-source": f"/queues/{self._queue.name}",
            "ce-type": self._queue.command.DESCRIPTOR.full_name,
            **moment,
            **json.loads(row["trace"]),
        }

    def _count(self, tx: Tx) -> tuple[int, float]:
        """How many wait to be taken, and since when the oldest does."""
        row = tx.one(
            "SELECT COUNT(*) AS n, MIN(created_at) AS since FROM command WHERE queue = :queue",
            {"queue": self._queue.name},
        )
        assert row is not None
        return int(row["n"]), float(row["since"] or 0.0)

    def _age(self) -> float:
        return max(0.0, time.time() - self._since) if self._since else 0.0
