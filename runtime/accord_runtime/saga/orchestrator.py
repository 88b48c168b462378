"""Carries sagas through, on the executor.

A saga is a row, and one piece of work at a time. Each step's outcome, its
effect, the next position and the next piece of work commit together; a crash
anywhere leaves work that is found again. Retries are the executor's; when they
are used up the work is parked and the saga waits for an operator, with its
history.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import grpc

from accord import ServiceError, failure_of
from accord_runtime.database import Database, Row, Tx
from accord_runtime.saga import state_machine
from accord_runtime.saga.definition import Definition, Kind, Step, step_key
from accord_runtime.saga.state_machine import START, Phase, Position
from accord_runtime.telemetry import flow_spans
from accord_runtime.work.executor import Executor, Permanent, Queue
from accord_runtime.work.table import Effect, LeaseLost, Work

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    """
    CREATE TABLE saga (
        id TEXT NOT NULL PRIMARY KEY,
        definition TEXT NOT NULL,
        version BIGINT NOT NULL,
        phase TEXT NOT NULL,
        step BIGINT NOT NULL,
        cancelled BIGINT NOT NULL,
        history TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        updated_at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX saga_phase ON saga (phase, updated_at)",
]

LATER_MIGRATIONS: Final = [
    # With the definition: to count sagas takes their index alone, and not their histories.
    "CREATE INDEX saga_standing ON saga (phase, updated_at, definition)",
    "DROP INDEX saga_phase",
]
"""For the end of the migrations of a service that has sagas."""

QUEUE: Final = "saga"
"""Of the first versions. Each later version has a queue of its own, "saga/<definition>/<version>",
so that a process that does not know it never takes its work."""

DELAYS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0)
"""Seconds before each retry of a step: the usual 0, 1, 2, 4, 8, and then five minutes more,
so that a service that is being restarted does not need an operator."""

TIMEOUT: Final = 15.0
"""Seconds for one attempt of a step: no RPC of one may have a longer timeout in its contract."""

KEPT: Final = 90 * 24 * 3600.0
"""Seconds for which a saga is kept that has ended, with its history. One that an operator has
abandoned is kept for ever: what is left to settle is known by nothing else."""

SWEPT: Final = 1000
"""Sagas that one transaction removes at most."""


@dataclass(frozen=True, slots=True)
class Saga:
    """A saga as it stands."""

    id: str
    definition: str
    version: int
    position: Position
    cancelled: bool
    history: str
    """JSON list of {at, step, phase, outcome}."""
    created_at: float
    updated_at: float

    @property
    def queue(self) -> str:
        """Where its work is."""
        return queue_of(self.definition, self.version)


SAGAS: Final = (
    "SELECT id, definition, version, phase, step, cancelled, history, created_at, updated_at"
    " FROM saga"
)


def queue_of(definition: str, version: int) -> str:
    """The queue of the work of a definition's sagas."""
    return QUEUE if version == 1 else f"{QUEUE}/{definition}/{version}"


def queues(tx: Tx) -> list[str]:
    """The queues that have work of sagas, of any version."""
    found = [str(row["queue"]) for row in tx.all("SELECT DISTINCT queue FROM work")]
    return [queue for queue in found if queue.partition("/")[0] == QUEUE]


def load(tx: Tx, id: str, *, lock: bool = False) -> Saga | None:  # noqa: A002
    """The saga with this id; `lock` keeps others from changing it until the commit."""
    row = tx.one(f"{SAGAS} WHERE id = :id" + (tx.for_update if lock else ""), {"id": id})
    return None if row is None else to_saga(row)


def to_saga(row: Row) -> Saga:
    """A row of `SAGAS`."""
    values = dict(row)
    position = Position(Phase(values.pop("phase")), int(values.pop("step")))
    return Saga(**{**values, "position": position, "cancelled": bool(row["cancelled"])})


def sweep(tx: Tx, now: float) -> int:
    """Remove some of the sagas that ended too long ago; return how many."""
    return tx.execute(
        "DELETE FROM saga WHERE id IN (SELECT id FROM saga"
        " WHERE phase IN (:done, :undone) AND updated_at <= :oldest LIMIT :most)",
        {"done": Phase.DONE, "undone": Phase.UNDONE, "oldest": now - KEPT, "most": SWEPT},
    )


class Sagas:
    """The sagas of one service."""

    def __init__(
        self, database: Database, executor: Executor, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._executor = executor
        self._clock = clock
        self._definitions: dict[tuple[str, int], Definition] = {}
        self._known: dict[str, tuple[str, Saga]] = {}  # with the id of the work that goes on
        self._serve(QUEUE)

    def _serve(self, queue: str) -> None:
        self._executor.register(
            Queue(queue, self._work, delays=DELAYS, timeout=TIMEOUT, concurrency=32, goes_on=True)
        )

    def register(self, definition: Definition) -> None:
        """Make a definition known. Old versions stay registered while sagas of them run.

        Raises:
            ValueError: this version of it is known already.
        """
        key = (definition.name, definition.version)
        if key in self._definitions:
            raise ValueError(
                f"version {definition.version} of {definition.name!r} is known already"
            )
        self._definitions[key] = definition
        if (queue := queue_of(*key)) != QUEUE:
            self._serve(queue)

    def definition(self, saga: Saga) -> Definition | None:
        """The definition that a saga began with; None if it is not known any more."""
        return self._definitions.get((saga.definition, saga.version))

    def start(self, tx: Tx, definition: Definition, id: str) -> Work:  # noqa: A002
        """Begin a saga; its first step is held for the caller to `Executor.run` after the commit.

        Raises:
            Conflict: there is a saga with this id.
        """
        self._insert(tx, definition, id)
        return self._executor.enqueue_held(tx, queue_of(definition.name, definition.version), id)

    def begin(self, tx: Tx, definition: Definition, id: str) -> None:  # noqa: A002
        """Begin a saga in the background, after the commit.

        Raises:
            Conflict: there is a saga with this id.
        """
        self._insert(tx, definition, id)
        self._executor.enqueue(tx, queue_of(definition.name, definition.version), id)

    def _insert(self, tx: Tx, definition: Definition, id: str) -> None:  # noqa: A002
        now = self._clock()
        tx.insert(
            "saga",
            {
                "id": id,
                "definition": definition.name,
                "version": definition.version,
                "phase": START.phase,
                "step": START.step,
                "cancelled": 0,
                "history": "[]",
                "created_at": now,
                "updated_at": now,
            },
        )

    def cancel(self, tx: Tx, id: str) -> None:  # noqa: A002
        """Ask for a saga to be undone. Whether it still can be is the caller's to decide."""
        row = tx.one(
            "UPDATE saga SET cancelled = 1, updated_at = :now WHERE id = :id"
            " RETURNING definition, version",
            {"id": id, "now": self._clock()},
        )
        tx.after_commit(partial(self._forget, id))
        if row is not None:
            self._executor.expedite(tx, queue_of(row["definition"], row["version"]), id)

    def _forget(self, id: str) -> None:  # noqa: A002
        self._known.pop(id, None)

    async def _work(self, work: Work) -> Effect | None:
        then, saga = self._known.pop(work.key, ("", None))
        if then != work.id:
            saga = await self._database.look_up(lambda tx: load(tx, work.key))
        if saga is None or saga.position.ended:
            return None
        definition = self.definition(saga)
        if definition is None:
            known = ", ".join(f"{name} {version}" for name, version in sorted(self._definitions))
            raise Permanent(
                f"this process does not know version {saga.version} of {saga.definition!r}, only"
                f" {known or 'none'}: retry it when one runs that does"
            )
        steps, position = definition.steps, saga.position
        if saga.cancelled and state_machine.may_turn_back(steps, position):
            after = state_machine.turned_back(steps, position)
            return self._move(saga, definition, "turned back", after)
        step = steps[position.step]
        flow_spans.at_step(definition.name, step.name, position.phase)
        try:
            effect = await self._call(saga, step)
        except (ServiceError, grpc.RpcError) as error:
            failure = failure_of(error)
            refusable = position.phase is Phase.FORWARD and step.kind is not Kind.RETRIABLE
            if failure is None or not failure.refusal or not refusable:
                raise
            refusal = failure
            return self._move(
                saga,
                definition,
                f"refused: {failure.reason}",
                state_machine.refused(steps, position),
                lambda tx: definition.refused(tx, saga.id, step.name, refusal),
            )
        return self._move(saga, definition, "ok", None, effect)

    async def _call(self, saga: Saga, step: Step) -> Effect | None:
        if saga.position.phase is Phase.FORWARD:
            return await step.action(saga.id, step_key(saga.id, step.name, "do"))
        assert step.compensation is not None
        return await step.compensation(saga.id, step_key(saga.id, step.name, "undo"))

    def _move(
        self,
        before: Saga,
        definition: Definition,
        outcome: str,
        after: Position | None,
        effect: Effect | None = None,
    ) -> Effect:
        """The effect of a step's outcome: what it writes, the next position, the next work.

        Without `after` the step has succeeded, and where the saga goes depends on whether it was
        cancelled meanwhile.
        """

        def write(tx: Tx) -> None:
            # First what the step is about and then the saga, as those do who cancel one: in the
            # opposite order the two would wait for each other.
            if effect is not None:
                effect(tx)
            saga = load(tx, before.id, lock=True)
            # Positions move under this work's lease alone, unless an operator intervenes.
            if saga is None or saga.position != before.position:
                raise LeaseLost
            to = after or state_machine.succeeded(
                definition.steps, saga.position, cancelled=saga.cancelled
            )
            self.advance(tx, saga, to, outcome)

        return write

    def advance(self, tx: Tx, saga: Saga, after: Position, outcome: str) -> None:
        """Move a saga that was loaded with `lock`: its history, its next work, its end."""
        definition = self.definition(saga)
        tx.after_commit(partial(self._forget, saga.id))
        now = self._clock()
        entry = {
            "at": now,
            "step": step_name(definition, saga.position),
            "phase": saga.position.phase,
            "outcome": outcome,
        }
        tx.execute(
            "UPDATE saga SET phase = :phase, step = :step, history = :history,"
            " updated_at = :now WHERE id = :id",
            {
                "phase": after.phase,
                "step": after.step,
                "history": json.dumps([*json.loads(saga.history), entry]),
                "now": now,
                "id": saga.id,
            },
        )
        if after.phase is Phase.UNDONE and definition is not None:
            definition.undone(tx, saga.id)
        if not after.ended:
            then = self._executor.go_on(tx, saga.queue, saga.id, flow_at=saga.created_at)
            if then:
                moved = replace(saga, position=after)
                tx.after_commit(partial(self._known.__setitem__, saga.id, (then, moved)))


def step_name(definition: Definition | None, position: Position) -> str:
    """The step of a position; its number if the definition is not known."""
    return str(position.step) if definition is None else definition.steps[position.step].name
