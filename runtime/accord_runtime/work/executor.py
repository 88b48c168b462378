"""One durable executor for all background work of a service.

Work is a row of one table: handlers of received events, saga steps, timers and mails alike. Rows of
one (queue, key) run one after the other, in order; rows of different keys run in parallel. What is
enqueued in the course of a row belongs to the same *flow*: the oldest flows are served first, so
that what has begun ends, but for a share that the newest have. A row is *leased* while it is worked
on, so that it is found again when its process dies. What a handler wants to write it returns as an
`Effect`, which commits together with the completion of the row: handlers may run twice, their
effects happen once.

A failing row is tried again after its queue's delays - later, if the failure itself says when to
come back - and is then *parked*, the rows behind it with it, until an operator retries or discards
it. Other keys go on. A row whose process dies while it is at work counts that too, and is parked in
the end.

A row may go on with the next one of its key, which is then done in its place: a saga is not looked
for between its steps.

All that happens to a row is here, in some 500 lines.
"""

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from accord import use_trace
from accord.context import without_user
from accord_runtime.database import (
    Database,
    DatabaseCorrupt,
    DatabaseError,
    DatabaseUnavailable,
    Tx,
)
from accord_runtime.telemetry import flow_spans
from accord_runtime.ticks import until_next
from accord_runtime.work import failures, ownership, table
from accord_runtime.work.clock import DatabaseClock
from accord_runtime.work.table import Effect, LeaseLost, Share, Work
from accord_runtime.work.unserved import Unserved

log = logging.getLogger(__name__)

DELAYS: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry: at once, 1, 2, 4 and 8 s later; then parked."""

MAX_TOLD: Final = 60.0
"""Seconds up to which a failure is believed that says when to come back."""

WORK: Final = "work"
"""What the database's processes are told when one has all the work of a queue that it can do."""

POLL: Final = 5.0
"""Seconds after which the table is looked at even if nobody said that it changed."""

NOTE_AGAIN: Final = 1.0
"""Seconds after which a failure is noted that the database could not take."""

NEWEST: Final = 4
"""One of so many places of a queue is for the newest flows: they do not wait for a backlog."""

_LEASE_RESERVE: Final = 5.0

Handler = Callable[[Work], Awaitable[Effect | None]]


class Permanent(Exception):
    """Raised by a handler when no retry can help: the work is parked at once."""


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
    ahead: float = 0.0
    """Seconds ahead of time that work is enqueued at most."""
    group: int = 0
    """Characters at the beginning of a key that name its group, so that one that is slow leaves
    places to the others; 0: there are no groups."""
    per_group: int = 4
    """Rows of a group worked on at once by this process."""
    goes_on: bool = False
    """A row may `Executor.go_on` with the next one of its key, in its place."""

    @property
    def lease(self) -> float:
        """Seconds for which a row is leased."""
        return self.timeout + _LEASE_RESERVE

    @property
    def longest(self) -> float:
        """Seconds that a row waits at most; if it waits longer, a wrong clock has written it."""
        return max(MAX_TOLD, self.ahead, *self.delays)


@dataclass(slots=True)
class _Turn:
    """A row that is being completed, and what goes on from it."""

    work: Work
    then: Work | None = None
    leased: str = ""
    """Its id, though the commit may have failed."""


_turn: Final[ContextVar[_Turn | None]] = ContextVar("turn", default=None)


class Executor:
    """Runs the work of one service process.

    Args:
        database: the service's own.
        owner: this process among all that share the database; the same again
            after a restart, so that it finds at once what it had leased before.
        clock: Unix time in seconds; by default the database's, as each beat compares it.
    """

    def __init__(
        self, database: Database, owner: str, clock: Callable[[], float] | None = None
    ) -> None:
        self._database, self._owner, self._clock = database, owner, clock or DatabaseClock()
        self._queues: dict[str, Queue] = {}
        self._running = Counter[tuple[str, bool]]()  # by `queue` and `newest`
        self._groups = defaultdict[str, Counter[str]](Counter)  # by `queue`
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._next: dict[str, float] = {}  # by queue: when it is to be looked at; missing: now
        self._looking = asyncio.Lock()
        self._draining = self._taken_back = False
        self._shared = False  # with other processes
        self._at_work = set[str]()
        self.done, self.failed = Counter[str](), Counter[str]()
        """Attempts that have ended well, and that have not, by queue, since the process began."""
        self._suspect = ""  # the one at work
        self._unserved = Unserved()
        self._backlog = set[str]()  # queues in which the oldest flows wait for a place
        self._context = copy_context()

    def register(self, queue: Queue) -> None:
        """Say how the work of a queue is done."""
        if queue.name in self._queues:
            raise ValueError(f"queue {queue.name!r} has a handler already")
        self._queues[queue.name] = queue

    def enqueue(
        self,
        tx: Tx,
        queue: str,
        key: str,
        payload: bytes = b"",
        *,
        due_at: float | None = None,
        flow_at: float | None = None,
        seq: int = 0,
    ) -> None:
        """Add work in a transaction; it starts after the commit, or at `due_at`, Unix seconds.

        Rows of a key run one after the other, by `seq`; rows of equal `seq` as they were enqueued.
        `flow_at`, Unix seconds, is when the flow began to which it belongs; by default that of the
        work at hand, or else now.

        Raises:
            ValueError: nobody has registered the queue, or it is not due for longer than the
                queue's `ahead`.
        """
        if queue not in self._queues:
            raise ValueError(f"queue {queue!r} has no handler")
        now, longest = self._clock(), self._queues[queue].longest
        if due_at is not None and due_at > now + longest:
            raise ValueError(f"work of {queue!r} is due in {longest:g} s at most; see Queue.ahead")
        table.enqueue(tx, queue, key, payload, now=now, due_at=due_at, flow_at=flow_at, seq=seq)
        tx.after_commit(partial(self._changed, queue))

    def enqueue_held(self, tx: Tx, queue: str, key: str, payload: bytes = b"") -> Work:
        """Add work that this process will `run` itself, right after the commit.

        If it does not live to do so, the work is found like any other. The key must be new: held
        work does not wait for other rows of its key.
        """
        lease, now = self._queues[queue].lease, self._clock()
        return table.enqueue(tx, queue, key, payload, now=now, owner=self._owner, lease=lease)

    def go_on(self, tx: Tx, queue: str, key: str, *, flow_at: float) -> str:
        """Add work as `enqueue` does, from the effect of the row of that key that is at work.

        It is done next in that row's place, without being looked for; if this process does not live
        to do so, it is found like any other.

        Returns:
            Its id; empty when it is enqueued like any other, as no such row is at work.
        """
        turn = _turn.get()
        at_work = turn is not None and (turn.work.queue, turn.work.key) == (queue, key)
        if turn is None or turn.leased or not at_work or self._draining:
            self.enqueue(tx, queue, key, flow_at=flow_at)
            return ""
        lease, now = self._queues[queue].lease, self._clock()
        then = table.enqueue(
            tx, queue, key, now=now, flow_at=flow_at, owner=self._owner, lease=lease
        )
        turn.leased = then.id
        tx.after_commit(partial(setattr, turn, "then", replace(then, newest=turn.work.newest)))
        return then.id

    def expedite(self, tx: Tx, queue: str, key: str) -> None:
        """Let the waiting work of a key run after the commit, parked work from the beginning."""
        table.expedite(tx, queue, key, self._clock())
        tx.after_commit(self.wake)

    def wake(self) -> None:
        """Look at the table now."""
        self._next.clear()
        self._wake.set()

    def _changed(self, queue: str) -> None:
        self._next.pop(queue, None)
        self._wake.set()
        self._tell_if_full(queue)

    def _tell_if_full(self, queue: str) -> None:
        if max(self._free(self._queues[queue])) <= 0:
            self._database.notify(WORK)

    async def run(self, work: Work) -> None:
        """Do held work in the caller's own context (deadline, trace), but for nobody's sake.

        Goes on to its end even when the caller is cancelled.

        Raises:
            Exception: whatever the handler raised; the work will be tried again.
        """
        queue = self._queues[work.queue]
        room = self._taken_back and queue.name not in self._backlog and self._free(queue)[0] > 0
        placed = queue.goes_on and room
        if placed:
            self._take_place(queue, work)
        with without_user():
            task = asyncio.create_task(self._held(queue, work, placed))
        self._keep(task)
        await asyncio.shield(task)

    async def _held(self, queue: Queue, work: Work, placed: bool) -> None:
        then: Work | None = None
        try:
            then = await self._attempt(queue, work, held=True, goes_on=placed)
        finally:
            if placed:
                self._pass_on(queue, work, then)

    async def take_back(self) -> None:
        """Find again what an earlier life of this process had leased; before anything is held."""
        await self._database.write(self._look_after)
        self._taken_back = True

    async def serve(self) -> None:
        """Work until cancelled."""
        if not self._taken_back:
            await self.take_back()
        self._database.listen(WORK, self.wake)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live())
            tasks.create_task(self._claim_and_start())

    async def _claim_and_start(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._round()
            except DatabaseError as error:
                log.warning("work could not be claimed: %s", error)
                self._next.clear()
                pause = ownership.BEAT
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _live(self) -> None:
        """Say that this process lives, and look after what is lost or was written by a wrong clock.

        Alone with its database it has nothing to say and only looks.
        """
        while True:
            await asyncio.sleep(ownership.BEAT if self._shared else until_next(POLL))
            try:
                # Who is alone reads first, to cost nothing while nothing is wrong.
                if not self._draining and (
                    self._shared or await self._database.look_up(self._anything_wrong)
                ):
                    await self._database.write(self._look_after)
            except DatabaseError as error:
                log.warning("work of others could not be looked after: %s", error)

    def _anything_wrong(self, tx: Tx) -> bool:
        now = self._read_clock(tx)
        lost = ownership.lost(tx, self._owner, now, (), began=True)
        late = (table.waits_too_long(tx, q.name, now, q.longest) for q in self._queues.values())
        lies = self._unserved.look(tx, self._queues, now)
        return any(row["id"] not in self._at_work for row in lost) or any(late) or bool(lies)

    def _look_after(self, tx: Tx) -> None:
        now = self._read_clock(tx)
        self._shared = tx.postgres
        dead = ownership.beat(tx, self._owner, now, self._queues) if self._shared else []
        self._unserved.park(tx, self._queues, now)  # Before rows are locked: others wait for them.
        found = False
        for row in ownership.lost(tx, self._owner, now, dead, began=self._taken_back):
            if row["id"] not in self._at_work:
                what = "parked" if table.abandoned(tx, row, now) else "tried again"
                log.warning("%s %s is %s: its process died", row["queue"], row["key"], what)
                found = True
        for name, queue in self._queues.items():
            if table.bring_forward(tx, name, now, queue.longest):
                log.warning("work of %s is due now: a clock was ahead when it was written", name)
                found = True
        if found:
            tx.after_commit(self.wake)

    def _read_clock(self, tx: Tx) -> float:
        clock = self._clock
        return clock.read(tx, self.wake) if isinstance(clock, DatabaseClock) else clock()

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
        with suppress(DatabaseError):
            await self._database.write(lambda tx: ownership.leave(tx, self._owner))
            self._database.notify(WORK)

    async def _round(self) -> float:
        """Start what may run; return the seconds until the next look."""
        async with self._looking:
            if self._draining:
                return POLL
            now = self._clock()
            free = {
                name: places
                for name, queue in self._queues.items()
                if max(places := self._free(queue)) > 0
            }
            # Reading first keeps an idle look from being a write transaction.
            looked = [name for name in free if self._next.get(name, 0.0) <= now]
            self._next |= dict.fromkeys(looked, now + until_next(POLL))
            due, later = await self._database.look_up(lambda tx: table.look(tx, looked, now))
            for name, at in later.items():
                if name in self._next:  # Else it has changed meanwhile.
                    self._next[name] = min(self._next[name], at)
            backlog = self._queues.keys() - free.keys()
            if due:
                groups = {name: Counter(self._groups[name]) for name in due}
                claim = partial(self._claim, due=due, now=now, free=free, groups=groups)
                claimed = await self._database.write(claim)
                for work in claimed:
                    self._start(work)
                for name in due:
                    self._tell_if_full(name)
                taken = Counter(work.queue for work in claimed)
                backlog |= {name for name in due if taken[name] >= free[name][0]}
            self._backlog = (self._backlog - set(looked)) | backlog
            ends = min((self._next.get(name, 0.0) for name in free), default=math.inf)
            return min(POLL, max(0.0, ends - now))

    def _free(self, queue: Queue) -> tuple[int, int]:
        """The places of a queue that are free for the oldest flows, and for the newest."""
        return max(0, self._left(queue, newest=False)), self._left(queue, newest=True)

    def _left(self, queue: Queue, *, newest: bool) -> int:
        """Places of a queue less those that are taken: below 0 when callers took some meanwhile."""
        kept = queue.concurrency // NEWEST
        places = kept if newest else queue.concurrency - kept
        return places - self._running[queue.name, newest]

    def _claim(
        self,
        tx: Tx,
        due: Sequence[str],
        now: float,
        free: Mapping[str, tuple[int, int]],
        groups: Mapping[str, Counter[str]],
    ) -> list[Work]:
        claimed: list[Work] = []
        suspects = not self._suspect and tx.one(table.SUSPECTS) is not None
        for name in due:
            queue = self._queues[name]
            claim = partial(table.claim, tx, name, self._owner, now, lease=queue.lease)
            share = Share(queue.group, queue.per_group, Counter(groups[name]))
            claimed += claim(*free[name], share=share if queue.group else None)
            if suspects and not any(work.suspect for work in claimed):
                claimed += claim(1, suspects=True)
        return claimed

    def _start(self, work: Work) -> None:
        self._take_place(self._queues[work.queue], work)
        if work.suspect:
            self._suspect = work.id
        self._begin(work)

    def _take_place(self, queue: Queue, work: Work) -> None:
        self._running[work.queue, work.newest] += 1
        self._groups[work.queue][work.key[: queue.group]] += 1

    def _begin(self, work: Work) -> None:
        coroutine, name = self._work(self._queues[work.queue], work), f"{work.queue}:{work.key}"
        # Nothing of whose place it has, such as a deadline, is its own.
        self._keep(asyncio.create_task(coroutine, name=name, context=self._context.copy()))

    def _pass_on(self, queue: Queue, work: Work, then: Work | None) -> None:
        """Give the place of a row to the one that goes on from it, or else back."""
        if then is not None and not self._draining:
            self._begin(then)
            return
        self._running[work.queue, work.newest] -= 1
        # Which forgets a group that has none.
        self._groups[work.queue] -= Counter([work.key[: queue.group]])
        self._next.pop(work.queue, None)
        self._wake.set()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Was told to the caller of run(), who may be gone.

    async def _work(self, queue: Queue, work: Work) -> None:
        then: Work | None = None
        try:
            with use_trace(work.headers):
                then = await self._attempt(queue, work, goes_on=queue.goes_on)
        except Exception as error:
            log.debug("%s %s failed: %s", work.queue, work.key, error)
        finally:
            if self._suspect == work.id:
                self._suspect = ""
                self.wake()
            self._pass_on(queue, work, then)

    async def _attempt(
        self, queue: Queue, work: Work, *, held: bool = False, goes_on: bool = False
    ) -> Work | None:
        """Do a row, and say what goes on from it."""
        turn = _Turn(work)
        self._at_work.add(work.id)
        table.current_flow.set(work.flow_at)
        try:
            with flow_spans.working(work):
                effect = await _handle(queue, work)
                within = goes_on and self._left(queue, newest=work.newest) >= 0
                token = _turn.set(turn if within else None)
                try:
                    await self._database.write(
                        lambda tx: table.complete(tx, work, self._owner, effect)
                    )
                finally:
                    _turn.reset(token)
            self.done[queue.name] += 1
            return turn.then
        except LeaseLost:
            log.warning("%s %s took longer than its lease, or was taken away", work.queue, work.key)
        except Exception as error:
            self.failed[queue.name] += 1
            await self._failed(queue, work, error, turn.leased)
            if held:
                raise
        finally:
            self._at_work.discard(work.id)
        return None

    async def _failed(self, queue: Queue, work: Work, error: Exception, leased: str = "") -> None:
        text = failures.in_words(error)
        now = self._clock()
        retry_at = None
        if isinstance(error, Permanent | DatabaseCorrupt) or work.attempts >= len(queue.delays):
            log.error("%s %s is parked: %s", work.queue, work.key, text)
        else:
            retry_at = now + max(queue.delays[work.attempts], failures.told(error, MAX_TOLD))
            log.info("%s %s will be tried again: %s", work.queue, work.key, text)

        def write(tx: Tx) -> None:
            table.fail(tx, work, self._owner, text, now, retry_at)
            if leased:  # The commit may have been done, although it was not heard of.
                ownership.give_back(tx, leased, self._owner)
            tx.after_commit(self.wake)

        try:
            await self._database.write(write)
        except DatabaseError as problem:
            log.warning("a failure of %s %s is to be noted: %s", queue.name, work.key, problem)
            self._keep(asyncio.create_task(self._note_later(work, write)))

    async def _note_later(self, work: Work, write: Effect) -> None:
        """Note a failure when the database is back; until then the work is nobody else's."""
        self._at_work.add(work.id)
        try:
            while True:
                await asyncio.sleep(NOTE_AGAIN)
                with suppress(DatabaseUnavailable):
                    return await self._database.write(write)
        finally:
            self._at_work.discard(work.id)


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
