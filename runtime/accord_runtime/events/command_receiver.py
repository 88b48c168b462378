"""Takes commands from a work queue as they can be carried out, into the executor of this database.

A command is committed and then acknowledged; attempts and parking are the executor's, and the
broker's redelivery is for processes that die in between. Receivers with databases of their own
share a queue; those that share a database take turns, and share the work by its table.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from accord import use_trace
from accord_runtime.database import Database, Lock, Tx
from accord_runtime.events.broker import Broker, persistently
from accord_runtime.events.inbox import MEMORY
from accord_runtime.events.notifier import wait
from accord_runtime.events.work_queue import WorkQueue
from accord_runtime.grpc import validation
from accord_runtime.ticks import until_next
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Permanent, Queue
from accord_runtime.work.table import Effect, Work

CommandHandler = Callable[[Any], Awaitable[Effect | None]]
"""Carries a command out, and returns what to write."""

PAUSE: Final = 0.2
"""Seconds between two looks for room that another process of the database may have made."""

PATIENCE: Final = 5.0
"""Seconds for which the broker is asked for a command while there is none."""

OTHERS: Final = 1.0
"""The same where there are several levels, of which one is waited for at a time."""

_SWEEP: Final = 3600.0


class CommandReceiver:
    """The receiving side of a work queue. `ready` says whether more is wanted at the moment."""

    def __init__(
        self,
        queue: WorkQueue,
        handler: CommandHandler,
        *,
        database: Database,
        broker: Broker,
        executor: Executor,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._database = database
        self._broker = broker
        self._executor = executor
        self._ready = ready
        self._free = asyncio.Event()
        self._swept = 0.0
        for level in queue.levels:
            name, delays = queue.work(level), queue.delays
            executor.register(Queue(name, self._handle, delays, concurrency=queue.concurrency))

    async def serve(self) -> None:
        """Receive until cancelled, whenever the broker is there."""
        await persistently(f"receiving from the queue {self._queue.name}", self._hold)

    async def _hold(self) -> None:
        async with self._database.exclusive(f"queue:{self._queue.name}") as lock:
            await persistently(
                f"receiving from the queue {self._queue.name}", partial(self._receive, lock)
            )

    async def _receive(self, lock: Lock) -> None:
        queue, jetstream = self._queue, await self._broker.jetstream()
        await queue.ensure(self._broker, jetstream)
        pulls = [
            await jetstream.pull_subscribe_bind(durable=level, stream=queue.stream)
            for level in queue.levels
        ]
        try:
            while True:
                self._free.clear()
                room = queue.prefetch - await self._database.read(self._held)
                if room <= 0 or not self._ready():
                    await wait(self._free, PAUSE)
                    continue
                if not (messages := await self._next(jetstream, pulls, room)):
                    continue
                # One request may have been left behind by another, and both are answered.
                taken, rest = messages[:room], messages[room:]
                await self._database.write(lock.guard(partial(self._take, messages=taken)))
                await asyncio.gather(
                    *(message.ack_sync() for message in taken),
                    *(message.nak() for message in rest),
                )
        finally:
            for pull in pulls:
                await pull.unsubscribe()

    async def _next(
        self,
        jetstream: JetStreamContext,
        pulls: Sequence[JetStreamContext.PullSubscription],
        room: int,
    ) -> list[Msg]:
        """Up to `room` commands, of the most urgent level that has any; none after a while.

        Raises:
            NotFoundError: the queue has gone.
        """
        for level, pull in zip(self._queue.levels, pulls, strict=True):
            info = await self._queue.consumer(jetstream, level)
            if (info.num_pending or info.num_ack_pending) and (
                messages := await _fetch(pull, room, PAUSE)
            ):
                return messages
        patience = OTHERS if len(pulls) > 1 else max(PAUSE, until_next(PATIENCE))
        return await _fetch(pulls[0], room, patience)

    def _take(self, tx: Tx, messages: Sequence[Msg]) -> None:
        now = time.time()
        for message in messages:
            headers, at = message.headers or {}, message.metadata.sequence.stream
            key = headers.get("ce-id") or f"{message.metadata.stream}/{at}"
            row = {"consumer": self._queue.stream, "event_id": key, "received_at": now}
            if not tx.insert("inbox", row, on_conflict="DO NOTHING"):
                continue
            work = self._queue.work(message.subject.rpartition(".")[2])
            with use_trace(headers):
                if why := self._refusal(headers, message.data, now):
                    table.enqueue(tx, work, key, message.data, now=now, parked=why)
                else:
                    self._executor.enqueue(tx, work, key, message.data)
        if now - self._swept > _SWEEP:
            self._swept = now
            tx.execute(
                "DELETE FROM inbox WHERE consumer = :consumer AND received_at < :before",
                {"consumer": self._queue.stream, "before": now - MEMORY},
            )

    def _refusal(self, headers: Mapping[str, str], payload: bytes, now: float) -> str:
        """Why a message is for the operator; empty if it is not."""
        kind = headers.get("ce-type", "")
        if kind != self._queue.command.DESCRIPTOR.full_name:
            return f"malformed: its ce-type is {kind!r}"
        try:
            command = self._parse(payload)
            expires = datetime.fromisoformat(headers["ce-expirytime"]).timestamp()
        except (Permanent, KeyError, ValueError, OverflowError) as error:
            return f"malformed: {error}" if isinstance(error, Permanent) else _NO_TIME
        if getattr(command, self._queue.key) != headers.get("ce-id"):
            return f"malformed: its ce-id is not the command's {self._queue.key}"
        if expires <= now:
            return f"expired at {headers['ce-expirytime']}, before anybody took it"
        return ""

    def _parse(self, payload: bytes) -> Message:
        """Raises Permanent: it is no command, or breaks the rules of its contract."""
        try:
            command = self._queue.command.FromString(payload)
        except DecodeError as error:
            raise Permanent(f"no {self._queue.command.DESCRIPTOR.full_name}: {error}") from error
        if wrong := validation.violations(command):
            raise Permanent("; ".join(f"{each.field}: {each.description}" for each in wrong))
        return command

    async def _handle(self, work: Work) -> Effect:
        effect = await self._handler(self._parse(work.payload))

        def write(tx: Tx) -> None:
            if effect is not None:
                effect(tx)
            tx.after_commit(self._free.set)

        return write

    def _held(self, tx: Tx) -> int:
        """Commands that were taken and are not done."""
        names = {f"level{at}": self._queue.work(each) for at, each in enumerate(self._queue.levels)}
        among = ", ".join(f":{name}" for name in names)
        sql = f"SELECT COUNT(*) FROM work WHERE state = 'ready' AND queue IN ({among})"
        return int(tx.value(sql, names))


_NO_TIME: Final = "malformed: its ce-expirytime is no time"


async def _fetch(pull: JetStreamContext.PullSubscription, most: int, seconds: float) -> list[Msg]:
    try:
        return await pull.fetch(most, timeout=seconds)
    except TimeoutError:
        return []
