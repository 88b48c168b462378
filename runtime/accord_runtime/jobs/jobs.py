"""Works on operations, step by step, on the executor.

A job is a row, and one piece of work at a time. What a step has found out, where the next one
begins and the next piece of work commit together: a process that dies costs the step that it was
at, and no step has its effect twice. A step that fails is tried again as all work is; when it has
failed too often the operation fails, and nothing is parked. Cancelling ends the operation at once:
a step that is under way then has no effect any more.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from accord.errors import ResourceExhausted, ServiceError, failure_of
from accord.ops.v1.operation_pb2 import Operation, OperationState
from accord_runtime.database import Database, DatabaseError, Tx
from accord_runtime.events.notifier import Notifier
from accord_runtime.jobs import operations
from accord_runtime.work.executor import DELAYS, Executor, Permanent, Queue
from accord_runtime.work.table import DEATHS, Effect, Work

log = logging.getLogger(__name__)

MAX_RESULT: Final = 1024 * 1024
"""Bytes of a result: a quarter of what a message may have."""

OPERATIONS: Final = "operations"
"""What the database's processes are told when an operation has changed."""

SWEEP: Final = 60.0
"""Seconds between two looks for operations that have expired."""

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """What a step is given."""

    operation_id: str
    request: R
    checkpoint: bytes
    """Where the step before has ended; empty for the first."""
    done_units: int
    """What the step before has said."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step has done, when there are more to come."""

    checkpoint: bytes
    """Where the next step begins; at most a few kilobytes."""
    done_units: int
    total_units: int = 0
    """0 while it is not known."""
    effect: Effect | None = None
    """What the step wants to write."""
    pause: float = 0.0
    """Seconds before the next step, up to 60."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """How the jobs of one kind are done."""

    name: str
    request: type[R]
    step: Callable[[Job[R]], Awaitable[Progress | Message]]
    """Does a part of the job; a message is the result, of at most `MAX_RESULT` bytes. An error that
    says more than INTERNAL to the caller is raised as a `ServiceError`."""
    timeout: float = 30.0
    """Seconds that a step may take. What is lost with a process, and how long others wait for its
    end, grows with it."""
    delays: Sequence[float] = DELAYS
    """Seconds before each retry of a step."""
    concurrency: int = 2
    """Jobs that one process works on at once."""
    most: int = 100
    """Jobs that have not ended; more are refused."""

    @property
    def queue(self) -> str:
        """Queue of its work."""
        return f"job:{self.name}"


class Jobs:
    """The jobs of one service process.

    Args:
        database: the service's own.
        executor: runs the steps.
        notifier: wakes who watches an operation.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        database: Database,
        executor: Executor,
        notifier: Notifier,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._executor = executor
        self._notifier = notifier
        self._clock = clock

    def register(self, kind: Kind[R]) -> Kind[R]:
        """Make a kind of jobs known, and return it."""
        work = partial(self._work, kind)
        # A step that takes too long is judged here, so the executor waits longer.
        timeout = kind.timeout + 5.0
        self._executor.register(Queue(kind.queue, work, kind.delays, kind.concurrency, timeout))
        return kind

    def start(self, tx: Tx, kind: Kind[R], request: R) -> Operation:
        """Begin a job, in the transaction that records the answer of the call which asks for it.

        Raises:
            ResourceExhausted: too many have not ended yet (TOO_MANY_OPERATIONS).
        """
        if operations.running(tx, kind.name) >= kind.most:
            text = f"{kind.most} operations of kind {kind.name!r} have not ended yet"
            raise ResourceExhausted("TOO_MANY_OPERATIONS", 60.0, text)
        operation = operations.insert(tx, kind.name, request, self._clock())
        self._executor.enqueue(tx, kind.queue, operation.operation_id)
        return operation

    def cancel(self, tx: Tx, operation_id: str) -> Operation:
        """End an operation, unless it has ended; returns it.

        Raises:
            NotFound: there is none.
        """
        operation = operations.get(tx, operation_id, lock=True)
        if not operation.done:
            self._end(tx, operation, OperationState.OPERATION_STATE_CANCELLED)
            # Its work finds nothing to do, and is gone from the operator's list.
            self._executor.expedite(tx, f"job:{operation.kind}", operation_id)
        return operation

    async def serve(self) -> None:
        """Remove and end what has expired, until cancelled."""
        self._database.listen(OPERATIONS, partial(self._notifier.changed, OPERATIONS))
        while True:
            try:
                await self._database.write(self._sweep)
            except DatabaseError as error:
                log.warning("operations that have expired could not be removed: %s", error)
            await asyncio.sleep(SWEEP)

    def _sweep(self, tx: Tx) -> None:
        late = ServiceError(
            grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "it has not ended in a day"
        )
        for operation in operations.expired(tx, self._clock()):
            self._fail(tx, operation, late)

    async def _work(self, kind: Kind[R], work: Work) -> Effect | None:
        row = await self._database.read(partial(operations.find, operation_id=work.key))
        if row is None or row["state"] != operations.RUNNING:
            return None
        done = Operation.FromString(row["operation"]).done_units
        request = kind.request.FromString(row["request"])
        outcome: Progress | Any | ServiceError
        try:
            if work.deaths >= len(DEATHS):
                raise Permanent("its process has died again and again while it was at work")
            async with asyncio.timeout(kind.timeout):
                said = await kind.step(Job(work.key, request, row["checkpoint"], done))
            outcome = said if isinstance(said, Progress) else _packed(said)
        except Exception as error:
            failure = failure_of(error)
            final = isinstance(error, Permanent) or (failure is not None and failure.refusal)
            if not final and work.attempts < len(kind.delays):
                raise
            log.exception("operation %s failed", work.key)
            text = "the job has failed; the log of the service says why"
            outcome = failure or ServiceError(grpc.StatusCode.INTERNAL, "INTERNAL", text)
        return partial(self._settle, kind=kind, operation_id=work.key, outcome=outcome)

    def _settle(
        self, tx: Tx, kind: Kind[R], operation_id: str, outcome: Progress | Any | ServiceError
    ) -> None:
        row = operations.find(tx, operation_id, lock=True)
        if row is None or row["state"] != operations.RUNNING:
            return  # It was cancelled, or took too long.
        operation = Operation.FromString(row["operation"])
        if isinstance(outcome, ServiceError):
            self._fail(tx, operation, outcome)
        elif isinstance(outcome, Any):
            self._end(tx, operation, OperationState.OPERATION_STATE_SUCCEEDED, outcome)
        else:
            if outcome.effect is not None:
                outcome.effect(tx)
            operation.done_units = outcome.done_units
            operation.total_units = outcome.total_units
            now = self._clock()
            operations.go_on(tx, operation, outcome.checkpoint, now)
            due_at = now + min(60.0, outcome.pause) if outcome.pause else None
            self._executor.enqueue(tx, kind.queue, operation_id, due_at=due_at)
            self._tell(tx, operation)

    def _fail(self, tx: Tx, operation: Operation, failure: ServiceError) -> None:
        code, text = failure.code.value[0], failure.message[:500]
        operation.error.code = code
        operation.error.reason, operation.error.message = failure.reason, text
        self._end(tx, operation, OperationState.OPERATION_STATE_FAILED)

    def _end(
        self,
        tx: Tx,
        operation: Operation,
        state: "OperationState.ValueType",
        response: Any | None = None,
    ) -> None:
        operations.end(tx, operation, state, self._clock(), response)
        self._tell(tx, operation)

    def _tell(self, tx: Tx, operation: Operation) -> None:
        tx.after_commit(partial(self._notifier.changed, operation.operation_id))
        tx.after_commit(partial(self._database.notify, OPERATIONS))


def _packed(result: Message) -> Any:
    packed = Any()
    packed.Pack(result)
    if packed.ByteSize() > MAX_RESULT:
        text = f"the result has more than {MAX_RESULT} bytes"
        raise ServiceError(grpc.StatusCode.OUT_OF_RANGE, "RESULT_TOO_LARGE", text)
    return packed
