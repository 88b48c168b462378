"""Something done at a party outside that has a memory of its own, and undone there.

The party is never asked inside a transaction. Before it is asked, a record says so; after it has
answered, the record may have moved on, and then the record is right: it was written first. What is
begun to be undone is finished by the executor, whatever happens to this process. That there is no
record does not say that the party was not asked: a restored database has lost those since its copy.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from accord import ServiceError
from accord_runtime.database import Database, Tx
from accord_runtime.work.executor import DELAYS, Executor, Queue
from accord_runtime.work.table import Effect, Work

Record = TypeVar("Record")
Outcome = TypeVar("Outcome")
Answer = TypeVar("Answer")


class ExternalEffect(Generic[Record]):
    """How the records of one kind are done and undone.

    Args:
        database: where the records are.
        executor: finishes what is begun to be undone.
        queue: of that work; its key is the record's.
        find: the record with a key.
        is_undoing: whether a record waits for the party to undo it.
        undo: asks the party, which must bear being asked again, and for what it never did; returns
            what to write.
        delays: seconds before the executor asks again, each time; then an operator must.
    """

    def __init__(
        self,
        database: Database,
        executor: Executor,
        queue: str,
        find: Callable[[Tx, str], Record | None],
        is_undoing: Callable[[Record], bool],
        undo: Callable[[Record], Awaitable[Effect]],
        delays: Sequence[float] = DELAYS,
    ) -> None:
        self._database = database
        self._executor = executor
        self._queue = queue
        self._find = find
        self._is_undoing = is_undoing
        self._undo = undo
        executor.register(Queue(queue, self._finish, delays=delays))

    async def do(
        self,
        key: str,
        begin: Callable[[Tx], Record],
        ask: Callable[[Record], Awaitable[Outcome]],
        settle: Callable[[Tx, Record, Outcome], None],
        answer: Callable[[Tx, Record], Answer | ServiceError | None],
    ) -> Answer:
        """Have something done, unless the record has the answer already.

        Args:
            key: of the record.
            begin: writes the record, unless there is one, and returns it.
            ask: asks the party.
            settle: writes its outcome, unless the record has moved on.
            answer: what a record says to the caller; None while the party must be asked.

        Raises:
            ServiceError: the answer is a refusal.
            Exception: the outcome is not known, as `ask` raised it; do it again.
        """

        def start(tx: Tx) -> tuple[Record, Answer | ServiceError | None]:
            record = begin(tx)
            return record, answer(tx, record)

        record, said = await self._database.write(start)
        if said is None:
            outcome = await ask(record)

            def finish(tx: Tx) -> Answer | ServiceError | None:
                settle(tx, record, outcome)
                settled = self._find(tx, key)
                assert settled is not None
                return answer(tx, settled)

            said = await self._database.write(finish)
            assert said is not None
        if isinstance(said, ServiceError):
            raise said
        return said

    def undo_later(self, tx: Tx, key: str, begin: Callable[[Tx], bool]) -> None:
        """Have it undone by the executor; `begin` as for `undo`."""
        if begin(tx):
            self._executor.enqueue(tx, self._queue, key)

    async def undo(self, key: str, begin: Callable[[Tx], bool]) -> None:
        """Have it undone; returns when the party has answered, or when there is nothing to ask.

        `begin` decides that it is undone, and writes a record where there is none; True if that is
        new, and the party must be asked.

        Raises:
            Exception: the outcome is not known; the executor asks again.
        """

        def start(tx: Tx) -> tuple[Work | None, Record | None]:
            if begin(tx):
                # Whatever happens to this process, the work is found again.
                return self._executor.enqueue_held(tx, self._queue, key), None
            return None, self._undoing(tx, key)

        work, waiting = await self._database.write(start)
        if work is not None:
            await self._executor.run(work)
        elif waiting is not None:
            # Its work waits for the next attempt, or for an operator.
            finish = await self._undo(waiting)

            def catch_up(tx: Tx) -> None:
                finish(tx)
                # It finds nothing left to do, and is gone from the operator's list.
                self._executor.expedite(tx, self._queue, key)

            await self._database.write(catch_up)

    async def _finish(self, work: Work) -> Effect | None:
        """Finish what was begun; the handler of the queue."""
        record = await self._database.look_up(lambda tx: self._undoing(tx, work.key))
        return None if record is None else await self._undo(record)

    def _undoing(self, tx: Tx, key: str) -> Record | None:
        record = self._find(tx, key)
        return record if record is not None and self._is_undoing(record) else None
