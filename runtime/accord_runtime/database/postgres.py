"""PostgreSQL: a few connections, one per thread, and a schema per service.

Transactions run at READ COMMITTED: check-then-act needs a row lock, an UPDATE that names the
version it saw, or a unique constraint. Connect to the server itself or to a pooler in session mode:
schema, prepared statements and advisory locks belong to the session.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import pq

from accord_runtime.database.interface import (
    CommitUnknown,
    Database,
    DatabaseError,
    DatabaseUnavailable,
    Lock,
    Tx,
)
from accord_runtime.database.postgres_parameters import conninfo
from accord_runtime.database.postgres_sql import (
    NumberLoader,
    PostgresTx,
    is_lost,
    is_passing,
    translated,
)
from accord_runtime.database.worker_threads import Job, WorkerThreads

T = TypeVar("T")

_log = logging.getLogger(__name__)

CONNECTIONS = 4
"""Connections at most; they are opened as they are needed."""
BACKLOG = 1024
"""Calls queued before further callers wait."""
STATEMENT_TIMEOUT = 10.0
"""Seconds for one statement, waiting for locks included; then `DatabaseUnavailable`."""
RETRY_FOR = 3.0
"""Seconds after its start in which a transaction is begun again."""
ATTEMPTS = 8
"""Times a transaction is begun at most."""
NOTIFY_PAUSE = 0.02
"""Seconds between notifications; what is told meanwhile goes together."""
LISTEN_AGAIN = 1.0
"""Seconds before the connection that listens is opened again."""
LOCK_POLL = 0.5
"""Seconds between looks at a lock, both while waiting for it and while holding it."""
LOCK_ANSWER = 2.0
"""Seconds without an answer after which a held lock counts as lost."""
LOCK_SILENCE = 2.5
"""Seconds without a renewal after which another may take the lock."""


class _Again(Exception):
    """The transaction is undone and may be begun again; its caller gets `error` otherwise."""

    def __init__(self, cause: psycopg.Error, error: DatabaseError | None = None) -> None:
        super().__init__(str(cause))
        self.error = error or translated(cause)
        self.error.__cause__ = cause


class _Session:
    """One connection, opened when needed and again when it was lost."""

    def __init__(self, url: str, service: str, closing: threading.Event) -> None:
        self._url = url
        self._service = service
        self._closing = closing
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._settle(job)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _settle(self, job: Job) -> None:
        give_up = time.monotonic() + RETRY_FOR
        for attempt in range(ATTEMPTS):
            try:
                job.succeed(*self._attempt(job))
                return
            except _Again as again:
                job.fail(again.error)
                # Jittered, or two that were in each other's way would meet again.
                pause = random.uniform(0.5, 1.0) * 0.02 * 2**attempt
                if job.abandoned or time.monotonic() + pause > give_up or self._closing.wait(pause):
                    return
            except BaseException as error:
                job.fail(error)
                return

    def _attempt(self, job: Job) -> tuple[Any, list[Callable[[], None]]]:
        connection = self._connected()
        cursor = connection.cursor()
        begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if job.read_only else b"BEGIN"
        try:
            cursor.execute(begin)
        except psycopg.Error as error:
            self.close()
            raise _Again(error) from None
        tx = PostgresTx(cursor)
        try:
            outcome = tx.call(job.fn)
        except BaseException as raised:
            cause = tx.cause
            self._undo(cause)
            if cause is not None and (self._connection is None or is_passing(cause)):
                raise _Again(cause) from raised
            raise
        self._commit(connection, read_only=job.read_only)
        return outcome

    def _commit(self, connection: psycopg.Connection[Any], *, read_only: bool) -> None:
        if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
            self.close()
            raise DatabaseError("the transaction function ended the transaction itself")
        try:
            connection.execute(b"COMMIT")
        except psycopg.Error as error:
            failure = translated(error)
            if is_lost(error, connection):
                self.close()
                if read_only:
                    return
                failure = CommitUnknown(f"the connection was lost during commit: {error}")
            elif is_passing(error):
                raise _Again(error) from None
            raise failure from error

    def _undo(self, cause: psycopg.Error | None) -> None:
        """Roll back, or give the connection up if it is lost."""
        connection = self._connection
        assert connection is not None
        if cause is not None and is_lost(cause, connection):
            self.close()
            return
        try:
            connection.execute(b"ROLLBACK")
        except psycopg.Error:
            self.close()

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = self._connection
        if connection is None or connection.closed:
            try:
                connection = self._connection = self._connect()
            except psycopg.Error as error:
                failure = DatabaseUnavailable(f"cannot connect: {error}")
                raise _Again(error, failure) from None
        return connection

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        # Transactions are begun and ended by hand, so that it is known when COMMIT was sent.
        connection = psycopg.connect(conninfo(self._url, self._service), autocommit=True)
        connection.adapters.register_loader("numeric", NumberLoader)
        try:
            milliseconds = str(int(STATEMENT_TIMEOUT * 1000))
            connection.execute(
                "SELECT set_config('search_path', %s, false),"
                " set_config('statement_timeout', %s, false),"
                " set_config('idle_in_transaction_session_timeout', %s, false)",
                (f'"{self._service}"', milliseconds, milliseconds),
            )
        except BaseException:
            connection.close()
            raise
        return connection


_LOCKS = """
    CREATE TABLE IF NOT EXISTS locks (
        name TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, until TIMESTAMPTZ NOT NULL
    )
"""
_UNTIL = f"clock_timestamp() + interval '{LOCK_SILENCE} seconds'"


class PostgresLock(Lock):
    """A row of the table of locks, by the database's clock alone.

    Not a session's advisory lock: a frozen process keeps its session, and so its lock.
    """

    def __init__(self, name: str) -> None:
        self._key = {"name": name, "owner": uuid.uuid4().hex}

    def take(self, tx: Tx) -> bool:
        """Take the lock if nobody has it, or its holder is silent."""
        return bool(
            tx.execute(
                f"INSERT INTO locks AS l VALUES (:name, :owner, {_UNTIL})"
                " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until"
                f" WHERE l.until <= clock_timestamp() OR l.until > {_UNTIL}",
                self._key,
            )
        )

    def renew(self, tx: Tx) -> bool:
        """Keep the lock; False if another has it."""
        renew = f"UPDATE locks SET until = {_UNTIL} WHERE name = :name AND owner = :owner"
        return bool(tx.execute(renew, self._key))

    def give_up(self, tx: Tx) -> None:
        """Let the next have it at once."""
        tx.execute("DELETE FROM locks WHERE name = :name AND owner = :owner", self._key)

    def check(self, tx: Tx) -> None:
        """See `Lock.check`."""
        held = "SELECT 1 FROM locks WHERE name = :name AND owner = :owner FOR SHARE"
        if tx.one(held, self._key) is None:
            raise DatabaseUnavailable(f"the lock {self._key['name']!r} was lost")


_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(:channel, :topics)"


class PostgresDatabase(Database):
    """A schema on a PostgreSQL server, shared by all replicas of a service."""

    def __init__(self, url: str, service: str) -> None:
        self._url = url
        self._service = service
        self._closing = threading.Event()
        self._threads = self._new_threads(service, CONNECTIONS)
        self._untold: set[str] = set()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._telling: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    def _new_threads(self, name: str, threads: int) -> WorkerThreads:
        return WorkerThreads(
            name,
            lambda: _Session(self._url, self._service, self._closing),
            threads=threads,
            backlog=BACKLOG,
            failed=self._failed,
        )

    def prepare(self, tx: Tx) -> None:
        """Create the service's schema if it is missing."""
        name = self._service
        # IF NOT EXISTS is not safe against a replica that does the same at this moment.
        tx.execute("SELECT pg_advisory_xact_lock(hashtext(:name))", {"name": name})
        # Looked up first: without the right to create schemas, an existing one must do.
        if not tx.value("SELECT 1 FROM pg_namespace WHERE nspname = :name", {"name": name}):
            tx.execute(f'CREATE SCHEMA "{name}"')
        tx.execute(_LOCKS)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` at READ COMMITTED, again after a deadlock or a lost connection."""
        return await self._threads.submit(fn)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` read-only at REPEATABLE READ, which is one snapshot."""
        return await self._threads.submit(fn, read_only=True)

    def notify(self, topic: str) -> None:
        """Tell by NOTIFY; not in the transaction that it is about.

        NOTIFY keeps all others of the server from committing until its own commit is on disk: so it
        is a commit of its own, which need not be.
        """
        self._untold.add(topic)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._untold:
            params = {"channel": self._service, "topics": " ".join(self._untold)}
            self._untold.clear()
            with suppress(DatabaseError):
                await self.write(partial(Tx.one, sql=_NOTIFY, params=params))
            await asyncio.sleep(NOTIFY_PAUSE)

    def listen(self, topic: str, fn: Callable[[], None]) -> None:
        """Listen on a connection that is opened for the first of them."""
        self._listeners.setdefault(topic, []).append(fn)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        where = conninfo(self._url, self._service)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(where, autocommit=True) as found:
                    await found.execute(f'LISTEN "{self._service}"'.encode())
                    self._heard(*self._listeners)  # Nobody knows what was told until now.
                    async for told in found.notifies():
                        self._heard(*told.payload.split())
            except psycopg.Error as error:
                _log.warning("what other processes write is found late: %s", error)
            await asyncio.sleep(LISTEN_AGAIN)

    def _heard(self, *topics: str) -> None:
        for topic in topics:
            for fn in self._listeners.get(topic, ()):
                fn()

    async def close(self) -> None:
        """Finish what was accepted, without further retries, and close the connections."""
        self._closing.set()
        if self._listening is not None:
            self._listening.cancel()
        tasks = filter(None, (self._telling, self._listening))
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._threads.close()

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[Lock]:
        """Hold a row that is renewed on a connection of its own."""
        lock = PostgresLock(name)
        # A thread of its own, for whatever else waits must not keep it from being renewed.
        threads = self._new_threads(f"{self._service}-{name}", threads=1)
        try:
            while not await threads.submit(lock.take):  # noqa: ASYNC110
                await asyncio.sleep(LOCK_POLL)
            async with _guarded(threads, lock.renew, name):
                yield lock
        finally:
            # Not waited for long: with a lost connection its thread may hang for a while.
            with suppress(DatabaseError, TimeoutError):
                async with asyncio.timeout(LOCK_POLL):
                    await threads.submit(lock.give_up)
            threads.stop()


@asynccontextmanager
async def _guarded(
    threads: WorkerThreads, check: Callable[[Tx], bool], name: str
) -> AsyncIterator[None]:
    """Cancel the body when `check` no longer holds, and raise `DatabaseUnavailable` instead."""

    async def watch() -> None:
        held = True
        while held:
            await asyncio.sleep(LOCK_POLL)
            try:
                # Not wait_for, which loses a cancellation that comes together with the answer: the
                # watcher would outlive the body.
                async with asyncio.timeout(LOCK_ANSWER):
                    held = await threads.submit(check)
            except (DatabaseError, TimeoutError):
                held = False
        body.reschedule(asyncio.get_running_loop().time())

    try:
        async with asyncio.timeout(None) as body:
            watcher = asyncio.create_task(watch())
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if not body.expired():
            raise  # The body's own.
        raise DatabaseUnavailable(f"the lock {name!r} was lost") from None
