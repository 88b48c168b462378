"""SQLite: one process per file, one writer that groups commits, a few readers.

WAL with `synchronous=FULL` costs one fsync per commit. Writes that wait while a commit is under way
therefore share the next one, each in a savepoint of its own (https://sqlite.org/wal.html).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from accord_runtime.database.interface import (
    Conflict,
    Database,
    DatabaseCorrupt,
    DatabaseError,
    DatabaseLocked,
    DatabaseUnavailable,
    Lock,
    Params,
    Row,
    Tx,
)
from accord_runtime.database.worker_threads import Job, WorkerThreads

T = TypeVar("T")

READERS = 2
BACKLOG = 1024
"""Calls queued, for the writer and for the readers, before further callers wait."""
GROUP = 256
"""Writes per commit at most, so that the first of a burst does not wait for all of it."""
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another program that has the file locked, such as the sqlite3 shell."""
AUDIT = 1.0
"""Seconds in which damage is looked for when the file is opened; 0.6 s go through 300 MB."""

_KEYS = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
_TRANSIENT = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _translated(error: sqlite3.Error) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", None)
    if code in _KEYS:
        return Conflict(str(error))
    if code is not None and code & 0xFF in _TRANSIENT:
        return DatabaseUnavailable(str(error))
    if code is not None and code & 0xFF in _DAMAGE:
        return DatabaseCorrupt(str(error))
    return DatabaseError(str(error))


def _lost(error: sqlite3.Error) -> DatabaseError:
    """What a caller gets whose transaction could not begin or commit."""
    failure = _translated(error)
    if not isinstance(error, sqlite3.IntegrityError) and not isinstance(failure, DatabaseCorrupt):
        failure = DatabaseUnavailable(f"the transaction was lost: {error}")
    failure.__cause__ = error
    return failure


class _SqliteTx(Tx):
    __slots__ = ("_connection",)

    postgres: ClassVar[bool] = False
    for_update: ClassVar[str] = ""
    skip_locked: ClassVar[str] = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def _run(self, sql: str, params: Params) -> tuple[int, list[Row]]:
        try:
            cursor = self._connection.execute(sql, params)
            # Also for `execute`: with RETURNING the count is right only after the last row.
            values = cursor.fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error
        columns = [column[0] for column in cursor.description or ()]
        return max(cursor.rowcount, 0), [Row(zip(columns, each, strict=True)) for each in values]


class _Session:
    """A connection, opened and closed by the thread that uses it."""

    pragmas: ClassVar[tuple[str, ...]] = (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"journal_size_limit = {64 << 20}",
    )

    def __init__(self, path: Path) -> None:
        try:
            # Transactions are begun and ended here by hand.
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            for pragma in self.pragmas:
                self._connection.execute(f"PRAGMA {pragma}")
            if damage := self._damage():
                raise DatabaseCorrupt(f"{path} is damaged: {damage}")
        except sqlite3.Error as error:
            damaged = isinstance(_translated(error), DatabaseCorrupt)
            kind = DatabaseCorrupt if damaged else DatabaseUnavailable
            raise kind(f"cannot open {path}: {error}") from error

    def _damage(self) -> str:
        return ""

    def close(self) -> None:
        self._connection.close()


class _Writer(_Session):
    def _damage(self) -> str:
        # Before SQLite 3.41 nothing but an interrupt ends a check that is under way.
        timer = threading.Timer(AUDIT, self._connection.interrupt)
        timer.start()
        try:
            found: str = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return "" if found == "ok" else " ".join(found.split())
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return ""
        finally:
            timer.cancel()

    def run(self, jobs: Sequence[Job]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError) and len(jobs) > 1:
                # A deferred constraint of one of them: find out whose by going one by one.
                for job in jobs:
                    self.run([job])
                return
            for job in jobs:
                if job.error is None:
                    job.fail(_lost(error))

    def _attempt(self, job: Job) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            job.succeed(*_SqliteTx(connection).call(job.fn))
        except BaseException as error:  # It belongs to the caller of this job; the others go on.
            job.fail(error)
            # Fails if SQLite undid the whole transaction by itself, as it may on a full disk.
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")


class _Reader(_Session):
    pragmas = (*_Session.pragmas, "query_only = ON")

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                job.succeed(self.read(job.fn))
            except BaseException as error:
                job.fail(error)

    def read(self, fn: Callable[[Tx], T]) -> T:
        self._connection.execute("BEGIN")
        try:
            return _SqliteTx(self._connection).call(fn)[0]
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


class _LookUps(_Reader):
    # The event loop waits for no other program.
    pragmas = (*_Reader.pragmas, "busy_timeout = 0")


def _own(file: Path) -> tuple[Path, int]:
    """Take the lock beside the file.

    Returns:
        The absolute path, and the lock's descriptor, which holds it until closed.
    """
    path = file.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(f"cannot open {path}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise DatabaseLocked(
            f"{path} is in use by process {owner or 'unknown'}; "
            "an SQLite file serves one process, use PostgreSQL for replicas"
        ) from error
    # Only for the message above: the kernel frees the lock itself when the process ends.
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
    return path, descriptor


class SqliteDatabase(Database):
    """A database in one file, which this process owns."""

    shared: ClassVar[bool] = False

    def __init__(self, file: str, service: str) -> None:
        path, lock = _own(Path(file))
        self._lock: int | None = lock
        self._named: dict[str, asyncio.Lock] = {}
        self._look_ups: _LookUps | None = None
        self._connect = partial(_LookUps, path)
        # One writer is also what keeps checkpoints and writes from different connections apart.
        threads = partial(WorkerThreads, backlog=BACKLOG, failed=self._failed)
        self._writer = threads(f"{service}-write", lambda: _Writer(path), threads=1, group=GROUP)
        self._readers = threads(f"{service}-read", lambda: _Reader(path), threads=READERS)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in the next commit, in a savepoint of its own."""
        return await self._writer.submit(fn)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` on a WAL snapshot; it neither waits for the writer nor holds it up."""
        return await self._readers.submit(fn, read_only=True)

    async def look_up(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` at once: some 20 us of work, which to hand to a thread and back costs 100."""
        if self._lock is None:
            raise DatabaseUnavailable("the database is closed")
        try:
            self._look_ups = self._look_ups or self._connect()
            return self._look_ups.read(fn)
        except (DatabaseUnavailable, sqlite3.Error):
            return await self.read(fn)  # Which has patience.
        except DatabaseError as error:
            self._failed(error)
            raise

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[Lock]:
        """Compete with tasks of this process only: the process owns the file."""
        async with self._named.setdefault(name, asyncio.Lock()):
            yield Lock()

    async def close(self) -> None:
        """Finish what was accepted, and give up the file."""
        await self._readers.close()
        await self._writer.close()
        if self._look_ups is not None:
            self._look_ups.close()
            self._look_ups = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
