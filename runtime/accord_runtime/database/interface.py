"""What domain code sees of a database, whichever backend it runs on."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

Params = Mapping[str, object]
NO_PARAMS: Params = {}
Row = dict[str, Any]
"""One row of a result: column -> value."""


class DatabaseError(Exception):
    """A statement could not be carried out; the driver's own error is the cause."""


class Conflict(DatabaseError):
    """A row with this unique or primary key exists already."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, or could not do the work now; trying later may help.

    Nothing was written, unless it is a `CommitUnknown`.
    """


class CommitUnknown(DatabaseUnavailable):
    """The connection was lost during COMMIT: the work is either wholly there or not at all."""


class DatabaseCorrupt(DatabaseError):
    """The file is damaged, or no database: no retry helps; docs/operations.md says what does."""


class DatabaseLocked(DatabaseError):
    """Another process owns this SQLite file."""


def among(name: str, values: Iterable[object]) -> tuple[str, dict[str, object]]:
    """Parameters for `IN (...)`, and their values."""
    params = {f"{name}{number}": value for number, value in enumerate(values)}
    return ", ".join(f":{each}" for each in params), params


class Tx(ABC):
    """An open transaction, valid only inside the function it was given to.

    SQL is the common subset of both backends with `:name` parameters. A failed statement fails the
    whole transaction on both, even when its error is caught: use `ON CONFLICT` to expect one.
    The function may be run again after a deadlock or a lost connection, and may be cancelled
    before it starts, so it must have no effect except through its transaction.
    """

    __slots__ = ("_callbacks", "_failure", "_over")

    postgres: ClassVar[bool]
    for_update: ClassVar[str]
    """Appended to a SELECT, locks its rows: `" FOR UPDATE"`, or nothing with a single writer."""
    skip_locked: ClassVar[str]
    """As `for_update`, but passes over rows that another transaction has locked."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._failure: DatabaseError | None = None
        self._over = False

    def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        """Run one statement and return how many rows it wrote."""
        return self._checked(sql, params)[0]

    def all(self, sql: str, params: Params = NO_PARAMS) -> list[Row]:
        """Run one statement and return its rows."""
        return self._checked(sql, params)[1]

    def all_of(self, sql: str, values: Iterable[object]) -> list[Row]:
        """Run one SELECT with `IN (:values)`, for these values, one at least; return its rows."""
        names, params = among("value", values)
        return self.all(sql.replace(":values", names), params)

    def one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        rows = self._checked(sql, params)[1]
        return rows[0] if rows else None

    def value(self, sql: str, params: Params = NO_PARAMS) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        row = self.one(sql, params)
        return None if row is None else next(iter(row.values()))

    def insert(self, table: str, values: Params, *, on_conflict: str = "") -> bool:
        """Insert one row, column -> value, and return whether that wrote it.

        `on_conflict` is what stands behind `ON CONFLICT`, as "DO NOTHING"; by default a conflict
        raises `Conflict`.
        """
        columns, parameters = ", ".join(values), ", ".join(f":{name}" for name in values)
        conflict = f" ON CONFLICT {on_conflict}" if on_conflict else ""
        sql = f"INSERT INTO {table} ({columns}) VALUES ({parameters}){conflict}"
        return self.execute(sql, values) > 0

    def after_commit(self, fn: Callable[[], None]) -> None:
        """Call `fn` on the event loop once the transaction has committed; never if it has not."""
        self._callbacks.append(fn)

    def _checked(self, sql: str, params: Params) -> tuple[int, list[Row]]:
        if self._over:
            raise DatabaseError("this transaction is over")
        if self._failure is not None:
            raise self._failure
        try:
            return self._run(sql, params)
        except DatabaseError as error:
            self._failure = error
            raise

    def call(self, fn: Callable[[Tx], T]) -> tuple[T, list[Callable[[], None]]]:
        """Run `fn` in this transaction, without ending it; for the backends only."""
        try:
            value = fn(self)
            if self._failure is not None:
                # PostgreSQL would answer COMMIT by rolling back, without an error.
                raise self._failure
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError("a transaction is a plain function, not a coroutine")
            return value, self._callbacks
        finally:
            self._over = True

    @abstractmethod
    def _run(self, sql: str, params: Params) -> tuple[int, list[Row]]:
        """Run one statement; raises `DatabaseError` for every failure of the driver."""


class Lock:
    """A lock that is held: what is written under it is guarded, for who was frozen has lost it."""

    def check(self, tx: Tx) -> None:
        """Raise `DatabaseUnavailable` if it is another's now; else it stays until the commit."""

    def guard(self, fn: Callable[[Tx], T]) -> Callable[[Tx], T]:
        """`fn`, which writes only while the lock is held."""

        def guarded(tx: Tx) -> T:
            self.check(tx)
            return fn(tx)

        return guarded


class Database(ABC):
    """One service's database; belongs to the event loop it was opened on."""

    shared: ClassVar[bool] = True
    """Whether other processes may have it open, too."""
    on_failure: Callable[[DatabaseError], None] | None = None
    """Told, on the event loop, of what kept a transaction from its end: not reached, or damaged."""

    def _failed(self, error: BaseException) -> None:
        if self.on_failure and isinstance(error, DatabaseUnavailable | DatabaseCorrupt):
            self.on_failure(error)

    def prepare(self, tx: Tx) -> None:  # noqa: B027 - most need nothing
        """Make what the service's tables are put into; `open_database` runs it first."""

    @abstractmethod
    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in one transaction and return its value once that is durable.

        An exception from `fn` undoes the work of this `fn` only and is raised here. Waits while the
        queue is full. If the caller is cancelled the work still happens wholly or not at all.

        Raises:
            Conflict: a unique or primary key exists already.
            DatabaseUnavailable: not written; as `CommitUnknown`, perhaps written.
            DatabaseCorrupt: what it is stored in is damaged; not written.
            DatabaseError: any other fault of a statement.
        """

    @abstractmethod
    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` on a read-only snapshot, which holds every write acknowledged before.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
            DatabaseError: any other fault of a statement, including an attempt to write.
        """

    async def look_up(self, fn: Callable[[Tx], T]) -> T:
        """As `read`, for a few rows that an index finds.

        Where such a read costs less than to hand it to a thread it is done at once, and nothing
        else runs on the event loop meanwhile.
        """
        return await self.read(fn)

    @abstractmethod
    def exclusive(self, name: str) -> AbstractAsyncContextManager[Lock]:
        """Hold the lock `name` of this database: `async with database.exclusive("relay") as lock`.

        Waits until the lock is free. It passes to another when its holder has been silent for
        three seconds: dead, frozen or cut off. The body is then cancelled and the `async with`
        raises `DatabaseUnavailable`. Another holder may be at work already: what writes under the
        lock goes through `lock.guard`, and what is done outside must bear being done twice.
        """

    def notify(self, topic: str) -> None:  # noqa: B027 - one process alone has nobody to tell
        """Have `listen` of all processes of this database called, after a commit of this one."""

    def listen(self, topic: str, fn: Callable[[], None]) -> None:  # noqa: B027
        """Call `fn` on the event loop when a process has notified, or may have.

        Notifications are lost with a process: whoever listens also looks by itself, if seldom.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted, then stop. Calls that come later get `DatabaseUnavailable`."""
