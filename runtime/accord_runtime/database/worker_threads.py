"""Threads that do an event loop's blocking database work."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from accord_runtime.database.interface import DatabaseUnavailable, Tx

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """One transaction function on its way to a thread and back."""

    fn: Callable[[Tx], Any]
    future: asyncio.Future[Any]
    read_only: bool
    value: Any = None
    error: BaseException | None = None
    after: Sequence[Callable[[], None]] = ()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more, so that it need not be started."""
        return self.future.cancelled()

    def succeed(self, value: Any, after: Sequence[Callable[[], None]] = ()) -> None:
        """Note its value and what to call on the event loop; delivered when the session returns."""
        self.value, self.after, self.error = value, after, None

    def fail(self, error: BaseException) -> None:
        """Note the error its caller gets."""
        # A future refuses StopIteration, and its caller would wait for ever.
        if isinstance(error, StopIteration):
            wrapped = RuntimeError("a transaction function raised StopIteration")
            wrapped.__cause__ = error
            error = wrapped
        self.value, self.after, self.error = None, (), error


class Session(Protocol):
    """A database connection, used by one thread only."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Settle every job with `succeed` or `fail`; what it raises fails all of them."""

    def close(self) -> None:
        """Close the connection."""


class WorkerThreads:
    """At most `threads` threads, each with a session of its own, fed from one bounded queue.

    Threads start when they are first needed. With `group > 1` a thread hands its session all jobs
    that are waiting, up to that many, so that they can share a commit. `failed` is told of each
    error, on the event loop.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Session],
        *,
        threads: int,
        backlog: int,
        group: int = 1,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._name = name
        self._connect = connect
        self._limit = threads
        self._group = group
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        # The semaphore is what bounds the queue: callers wait for room without blocking the loop.
        self._room = asyncio.Semaphore(backlog)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._unfinished = 0
        self._ended: list[asyncio.Future[None]] = []
        self._closed = False

    async def submit(self, fn: Callable[[Tx], T], *, read_only: bool = False) -> T:
        """Have `fn` run in a transaction by one of the threads, and return its value."""
        await self._room.acquire()
        try:
            if self._closed:
                raise DatabaseUnavailable("the database is closed")
            if self._unfinished >= len(self._ended) < self._limit:
                self._start_thread()
        except BaseException:
            self._room.release()
            raise
        future: asyncio.Future[T] = self._loop.create_future()
        self._unfinished += 1
        # The transaction runs in a thread, but sees the caller's context: its trace, its call.
        context = contextvars.copy_context()
        self._queue.put(Job(lambda tx: context.run(fn, tx), future, read_only))
        return await future

    def stop(self) -> None:
        """Refuse further jobs and have the threads end after those that are queued."""
        if not self._closed:
            self._closed = True
            for _ in self._ended:
                self._queue.put(None)

    async def close(self) -> None:
        """Stop, and wait until the threads have ended."""
        self.stop()
        if self._ended:
            await asyncio.wait(self._ended)

    def _start_thread(self) -> None:
        ended: asyncio.Future[None] = self._loop.create_future()
        # Daemons: a process that dies without closing must not hang; the record is crash safe.
        threading.Thread(
            target=self._work, args=(ended,), name=f"{self._name}-{len(self._ended)}", daemon=True
        ).start()
        self._ended.append(ended)

    def _work(self, ended: asyncio.Future[None]) -> None:
        session: Session | None = None
        while jobs := self._next():
            live = [job for job in jobs if not job.abandoned]
            try:
                if live:
                    session = session or self._connect()
                    session.run(live)
            except BaseException as error:  # Whatever happened, each caller must get an answer.
                for job in live:
                    job.fail(error)
            self._tell(self._finish, jobs)
            # An idle thread should not keep the last results alive.
            del jobs, live
        if session is not None:
            session.close()
        self._tell(ended.set_result, None)

    def _next(self) -> list[Job]:
        """Wait for work; returns nothing when the thread is to end."""
        jobs: list[Job] = []
        while len(jobs) < self._group:
            try:
                job = self._queue.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                if jobs:
                    self._queue.put(None)
                break
            jobs.append(job)
        return jobs

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            _log.debug("the event loop ended before its database was closed")

    def _finish(self, jobs: Sequence[Job]) -> None:
        """Deliver the outcomes; runs on the event loop."""
        for job in jobs:
            self._unfinished -= 1
            self._room.release()
            if job.error is not None:
                self._failed(job.error)
            for callback in job.after:
                try:
                    callback()
                except Exception:
                    _log.exception("a callback after commit failed")
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.value)
