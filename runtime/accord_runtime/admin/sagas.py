"""SagaService: where the sagas of a service stand, and the ways out for one that is stuck.

Whatever an intervention writes, it locks in the order of a step's own outcome -
first what the saga is about, then the saga, then its work - so that the two
never wait for each other.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from google.protobuf.message import Message

from accord.admin.mesh_service import Intervention
from accord.errors import Aborted, FailedPrecondition, NotFound, Resource
from accord.ops.v1 import saga_pb2 as pb
from accord.ops.v1 import work_pb2 as pb_work
from accord.ops.v1.saga_pb2_grpc import SagaServiceServicer
from accord_runtime.admin import audit
from accord_runtime.admin.work import item_state, message, retry_item, seconds, state_of
from accord_runtime.database import Database, Params, Row, Tx, among
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp
from accord_runtime.saga import Definition, Phase, Saga, Sagas, orchestrator, state_machine
from accord_runtime.saga.orchestrator import SAGAS, load, step_name, to_saga
from accord_runtime.work import items, table
from accord_runtime.work.executor import Executor
from accord_runtime.work.items import Item, State

ENDED: Final = 24 * 3600.0
"""Seconds since they have ended, of the sagas that are counted when the caller does not say."""

_PHASES: Final = "phase IN (:forward, :backward)"

M = TypeVar("M", bound=Message)

Request = (
    pb.RetrySagaRequest | pb.SkipStepRequest | pb.CompensateSagaRequest | pb.AbandonSagaRequest
)


class SagaServicer(SagaServiceServicer):
    """The RPCs of `accord.ops.v1.SagaService`."""

    def __init__(self, database: Database, executor: Executor, sagas: Sagas) -> None:
        self._database = database
        self._executor = executor
        self._sagas = sagas

    async def ListSagas(
        self, request: pb.ListSagasRequest, context: Context
    ) -> pb.ListSagasResponse:
        """Lists sagas by id, oldest or newest first."""
        age, youngest = seconds(request.min_age), seconds(request.max_age)
        filters = {"phase": str(request.phase), "min_age": str(age)}
        more = {"max_age": youngest, "work": request.work_state, "newest": request.newest_first}
        filters |= {name: str(value) for name, value in more.items() if value}
        asked = Page(request, definition=request.definition, **filters)
        now, state = time.time(), state_of(request.work_state)

        def read(tx: Tx) -> pb.ListSagasResponse:
            queues = orchestrator.queues(tx)
            where = ["created_at <= :before", *(["created_at >= :after"] if youngest else [])]
            params: dict[str, object] = {"before": now - age, "after": now - youngest}
            if state is not None:
                working, these = _working(queues, items.WHERE[state])
                where.append(working)
                params |= these
            rows, token = asked.read(
                tx,
                SAGAS,
                "id",
                *where,
                params=params,
                equal={"definition": request.definition, "phase": _phase_value(request.phase)},
                newest_first=request.newest_first,
            )
            work = items.firsts(tx, queues, [row["id"] for row in rows])
            sagas = (self._message(to_saga(row), work.get(row["id"])) for row in rows)
            return pb.ListSagasResponse(sagas=sagas, next_page_token=token)

        return await self._database.read(read)

    async def GetSagaCounts(
        self, request: pb.GetSagaCountsRequest, context: Context
    ) -> pb.GetSagaCountsResponse:
        """Returns how many sagas there are, by definition and phase."""
        since = time.time() - (seconds(request.ended_within) or ENDED)

        def read(tx: Tx) -> pb.GetSagaCountsResponse:
            working, these = _working(orchestrator.queues(tx), items.WHERE[State.PARKED])
            phases = {"forward": Phase.FORWARD, "backward": Phase.BACKWARD}
            ended = f"{_PHASES.replace('IN', 'NOT IN')} AND updated_at >= :since"
            rows = [*_count(tx, _PHASES, phases), *_count(tx, ended, {**phases, "since": since})]
            stuck = _count(tx, f"{_PHASES} AND {working}", {**phases, **these})
            parked = {(row["definition"], row["phase"]): row["n"] for row in stuck}
            counts = [
                pb.SagaCount(
                    definition=row["definition"],
                    phase=_phase(Phase(row["phase"])),
                    count=row["n"],
                    parked=parked.get((row["definition"], row["phase"]), 0),
                )
                for row in rows
            ]
            counts.sort(key=lambda each: (each.definition, each.phase))
            return pb.GetSagaCountsResponse(counts=counts)

        return await self._database.read(read)

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        """Returns a saga with all that has happened to it, and its work."""

        def read(tx: Tx) -> pb.GetSagaResponse:
            saga = _load(tx, request.saga_id)
            item = None if saga.position.ended else _item(tx, saga)
            return pb.GetSagaResponse(
                saga=self._message(saga),
                history=[
                    pb.SagaEvent(
                        at=timestamp(event["at"]),
                        step=event["step"],
                        phase=_phase(Phase(event["phase"])),
                        outcome=event["outcome"],
                    )
                    for event in json.loads(saga.history)
                ],
                work=None if item is None else message(item),
            )

        return await self._database.read(read)

    async def RetrySaga(
        self, request: pb.RetrySagaRequest, context: Context
    ) -> pb.RetrySagaResponse:
        """Tries the saga's current step again, now and with all its attempts."""

        def retry(tx: Tx) -> None:
            saga = _active(_load(tx, request.saga_id, lock=True))
            item = _item(tx, saga, lock=True)
            if item is None:
                # Nobody should have removed it; without it the saga would stand still for ever.
                self._definition(saga)
                self._executor.enqueue(tx, saga.queue, saga.id, flow_at=saga.created_at)
            else:
                retry_item(tx, item)
                tx.after_commit(self._executor.wake)

        return await self._intervene(request, retry, pb.RetrySagaResponse)

    async def SkipStep(self, request: pb.SkipStepRequest, context: Context) -> pb.SkipStepResponse:
        """Takes the current step for done, or undone, without calling it."""

        def skip(tx: Tx) -> None:
            seen = _active(_load(tx, request.saga_id))
            definition = self._definition(seen)
            step = definition.steps[seen.position.step]
            if step.name != request.step:
                raise FailedPrecondition(
                    "STEP_CHANGED", f"the current step of saga {seen.id} is {step.name}"
                )
            if seen.position.phase is Phase.FORWARD:
                if step.skipped is None:
                    raise FailedPrecondition(
                        "NOT_SKIPPABLE", f"what follows needs the outcome of step {step.name}"
                    )
                step.skipped(tx, seen.id)
            saga = _load(tx, request.saga_id, lock=True)
            if saga.position != seen.position:
                raise Aborted(message=f"saga {saga.id} has moved on")
            item = _item(tx, saga, lock=True)
            if item is None or item.state is not State.PARKED:
                raise FailedPrecondition(
                    "NOT_PARKED", f"step {step.name} of saga {saga.id} is not parked"
                )
            after = state_machine.succeeded(
                definition.steps, saga.position, cancelled=saga.cancelled
            )
            self._sagas.advance(tx, saga, after, "skipped")
            table.discard(tx, item.id)

        return await self._intervene(request, skip, pb.SkipStepResponse)

    async def CompensateSaga(
        self, request: pb.CompensateSagaRequest, context: Context
    ) -> pb.CompensateSagaResponse:
        """Turns the saga back, if it is still before its pivot."""

        def compensate(tx: Tx) -> None:
            definition = self._revocable(_load(tx, request.saga_id))
            definition.cancelled(tx, request.saga_id)
            self._revocable(_load(tx, request.saga_id, lock=True))
            self._sagas.cancel(tx, request.saga_id)

        return await self._intervene(request, compensate, pb.CompensateSagaResponse)

    async def AbandonSaga(
        self, request: pb.AbandonSagaRequest, context: Context
    ) -> pb.AbandonSagaResponse:
        """Gives the saga up as it stands."""

        def abandon(tx: Tx) -> None:
            saga = _active(_load(tx, request.saga_id, lock=True))
            self._sagas.advance(tx, saga, state_machine.abandoned(saga.position), "abandoned")
            tx.execute(
                "DELETE FROM work WHERE queue = :queue AND key = :key",
                {"queue": saga.queue, "key": saga.id},
            )

        return await self._intervene(request, abandon, pb.AbandonSagaResponse)

    async def _intervene(
        self, request: Request, change: Callable[[Tx], None], answer: Callable[..., M]
    ) -> M:
        """Change a saga, and write down who did, in one transaction; answer with what it is then.

        `change` may raise a refusal.
        """

        def write(tx: Tx) -> M:
            before = self._describe(tx, request.saga_id)
            change(tx)
            after = self._describe(tx, request.saga_id)
            audit.record(tx, Intervention(request.saga_id, request.reason, before, after))
            return answer(saga=self._message(_load(tx, request.saga_id)))

        return await commit(self._database, write)

    def _definition(self, saga: Saga) -> Definition:
        definition = self._sagas.definition(saga)
        if definition is None:
            raise FailedPrecondition(
                "UNKNOWN_DEFINITION",
                f"this process does not know version {saga.version} of {saga.definition}",
            )
        return definition

    def _revocable(self, saga: Saga) -> Definition:
        """The definition of a saga that can still be turned back; refuses any other."""
        position = _active(saga).position
        if saga.cancelled or position.phase is Phase.BACKWARD:
            raise FailedPrecondition("BEING_UNDONE", f"saga {saga.id} has turned back already")
        definition = self._definition(saga)
        if not state_machine.may_turn_back(definition.steps, position):
            raise FailedPrecondition("TOO_LATE", f"the pivot of saga {saga.id} has begun")
        return definition

    def _describe(self, tx: Tx, saga_id: str) -> str:
        """What the audit record says of it."""
        saga = _load(tx, saga_id)
        text = f"{saga.definition} {saga.position.phase}"
        if saga.position.ended:
            return text
        text += f" at {step_name(self._sagas.definition(saga), saga.position)}"
        if saga.cancelled and saga.position.phase is Phase.FORWARD:
            text += ", to be undone"
        item = _item(tx, saga)
        return text if item is None else f"{text}, {item.standing}"

    def _message(self, saga: Saga, work: Item | None = None) -> pb.Saga:
        undone = saga.position.phase is Phase.UNDONE
        return pb.Saga(
            work_state=pb_work.WORK_STATE_UNSPECIFIED if work is None else item_state(work),
            last_error="" if work is None else work.last_error,
            saga_id=saga.id,
            definition=saga.definition,
            version=saga.version,
            phase=_phase(saga.position.phase),
            step="" if undone else step_name(self._sagas.definition(saga), saga.position),
            cancelled=saga.cancelled,
            created_at=timestamp(saga.created_at),
            updated_at=timestamp(saga.updated_at),
        )


def _working(queues: Sequence[str], state: str) -> tuple[str, dict[str, object]]:
    """The condition for sagas whose work meets another, and its parameters."""
    names, params = among("queue", queues)
    work = f"SELECT key FROM work WHERE queue IN ({names}) AND {state}"
    return f"id IN ({work})" if queues else "1 = 0", params


def _count(tx: Tx, where: str, params: Params) -> list[Row]:
    sql = f"SELECT definition, phase, COUNT(*) AS n FROM saga WHERE {where}"
    return tx.all(f"{sql} GROUP BY definition, phase", params)


def _load(tx: Tx, saga_id: str, *, lock: bool = False) -> Saga:
    saga = load(tx, saga_id, lock=lock)
    if saga is None:
        raise NotFound(resource=Resource("accord.ops.v1.Saga", saga_id))
    return saga


def _item(tx: Tx, saga: Saga, *, lock: bool = False) -> Item | None:
    return items.first(tx, saga.queue, saga.id, lock=lock)


def _active(saga: Saga) -> Saga:
    if saga.position.ended:
        raise FailedPrecondition("SAGA_ENDED", f"saga {saga.id} is {saga.position.phase}")
    return saga


def _phase(phase: Phase) -> "pb.SagaPhase.ValueType":
    return pb.SagaPhase.Value(f"SAGA_PHASE_{phase.name}")


def _phase_value(wanted: "pb.SagaPhase.ValueType") -> str:
    """The phase as it is stored; empty for any."""
    if wanted == pb.SAGA_PHASE_UNSPECIFIED:
        return ""
    return Phase[pb.SagaPhase.Name(wanted).removeprefix("SAGA_PHASE_")].value
