"""WorkService: the dead letters of a service, and all other work that waits."""

import time
from collections.abc import Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration

from accord.admin.mesh_service import Intervention
from accord.errors import FailedPrecondition, NotFound, Resource
from accord.ops.v1 import work_pb2 as pb
from accord.ops.v1.work_pb2_grpc import WorkServiceServicer
from accord_runtime.admin import audit
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, duration, timestamp
from accord_runtime.saga.orchestrator import QUEUE as SAGA_QUEUE
from accord_runtime.service import Outgoing
from accord_runtime.work import backlog, items, table
from accord_runtime.work.executor import Executor
from accord_runtime.work.items import Item, State, Wanted

SPREAD: Final = 5
"""Seconds over which the items of a batch become due at most, where a rate is asked for."""

EXAMPLES: Final = 10
"""Items that a dry run shows."""

DISCARDED: Final = "discarded"

Matching = pb.RetryWorkMatchingRequest | pb.DiscardWorkMatchingRequest
Matched = pb.RetryWorkMatchingResponse | pb.DiscardWorkMatchingResponse


class WorkServicer(WorkServiceServicer):
    """The RPCs of `accord.ops.v1.WorkService`."""

    def __init__(
        self, database: Database, executor: Executor, outgoing: Sequence[Outgoing]
    ) -> None:
        self._database = database
        self._executor = executor
        self._outgoing = outgoing

    async def ListWork(self, request: pb.ListWorkRequest, context: Context) -> pb.ListWorkResponse:
        """Lists work, oldest first."""
        age = seconds(request.min_age)
        filters = {"error": request.error} if request.error else {}
        filters |= {"state": str(request.state), "queue": request.queue, "min_age": str(age)}
        asked = Page(request, **filters)
        state = state_of(request.state)
        wanted = Wanted(state, request.queue, time.time() - age, request.error)
        found, token = await self._database.read(lambda tx: items.page(tx, asked, wanted))
        return pb.ListWorkResponse(items=map(message, found), next_page_token=token)

    async def GetQueues(
        self, request: pb.GetQueuesRequest, context: Context
    ) -> pb.GetQueuesResponse:
        """Returns how much work each queue has."""
        now = time.time()

        def read(tx: Tx) -> pb.GetQueuesResponse:
            answer = pb.GetQueuesResponse(queues=(each(tx) for each in self._outgoing))
            for queue, work in backlog.count(tx).items():
                answer.queues.add(
                    queue=queue,
                    waiting=work.waiting,
                    in_flight=work.in_flight,
                    parked=work.parked,
                    oldest_age=duration(work.age(now)) if work.since else None,
                )
            return answer

        return await self._database.read(read)

    async def GetWork(self, request: pb.GetWorkRequest, context: Context) -> pb.GetWorkResponse:
        """Returns one item with its failures, its trace and its place in the queue."""

        def read(tx: Tx) -> pb.GetWorkResponse:
            item = self._find(tx, request.work_id)
            first = items.first(tx, item.queue, item.key)
            return pb.GetWorkResponse(
                item=message(item),
                history=[
                    pb.WorkFailure(
                        at=timestamp(failure["at"]),
                        attempt=failure["attempt"],
                        error=failure["error"],
                    )
                    for failure in item.history
                ],
                traceparent=item.trace.get("traceparent", ""),
                payload=items.payload(tx, item.id),
                behind=items.behind(tx, item),
                held_up_by="" if first is None or first.id == item.id else first.id,
                owner=item.owner,
                lease_until=timestamp(item.lease_until) if item.state is State.LEASED else None,
            )

        return await self._database.read(read)

    async def RetryWork(
        self, request: pb.RetryWorkRequest, context: Context
    ) -> pb.RetryWorkResponse:
        """Tries an item again, now and with all its attempts."""

        def retry(tx: Tx) -> pb.RetryWorkResponse:
            item = self._find(tx, request.work_id, lock=True)
            after = retry_item(tx, item)
            audit.record(tx, Intervention(item.id, request.reason, str(item), str(after)))
            tx.after_commit(self._executor.wake)
            return pb.RetryWorkResponse(item=message(after))

        return await commit(self._database, retry)

    async def DiscardWork(
        self, request: pb.DiscardWorkRequest, context: Context
    ) -> pb.DiscardWorkResponse:
        """Gives a parked item up; the work behind it goes on."""

        def discard(tx: Tx) -> pb.DiscardWorkResponse:
            item = self._find(tx, request.work_id, lock=True)
            _discard(tx, item)
            audit.record(tx, Intervention(item.id, request.reason, str(item), DISCARDED))
            tx.after_commit(self._executor.wake)
            return pb.DiscardWorkResponse(item=message(item))

        return await commit(self._database, discard)

    async def RetryWorkMatching(
        self, request: pb.RetryWorkMatchingRequest, context: Context
    ) -> pb.RetryWorkMatchingResponse:
        """Tries a batch of items again, one after the other."""
        now, pace = time.time(), request.per_second

        def retry(tx: Tx) -> pb.RetryWorkMatchingResponse:
            answer = pb.RetryWorkMatchingResponse()
            for number, item in enumerate(
                self._batch(tx, request, answer, pace * SPREAD if pace else None)
            ):
                try:
                    after = retry_item(tx, item, now + number / pace if pace else now)
                except FailedPrecondition:
                    answer.passed_over += 1
                    continue
                _note(tx, request.reason, item, str(after))
                answer.items.append(message(after))
            if pace and answer.next_page_token:
                answer.pause.CopyFrom(duration(len(answer.items) / pace))
            return answer

        return await commit(self._database, retry)

    async def DiscardWorkMatching(
        self, request: pb.DiscardWorkMatchingRequest, context: Context
    ) -> pb.DiscardWorkMatchingResponse:
        """Gives a batch of parked items up."""

        def discard(tx: Tx) -> pb.DiscardWorkMatchingResponse:
            answer = pb.DiscardWorkMatchingResponse()
            for item in self._batch(tx, request, answer, None):
                try:
                    _discard(tx, item)
                except FailedPrecondition:
                    answer.passed_over += 1
                    continue
                _note(tx, request.reason, item, DISCARDED)
                answer.items.append(message(item))
            return answer

        return await commit(self._database, discard)

    def _batch(self, tx: Tx, request: Matching, answer: Matched, most: int | None) -> list[Item]:
        """The items of a batch, locked; of a dry run none: the first are in the answer."""
        given = request.filter
        wanted = Wanted(
            state_of(given.state) or State.PARKED,
            given.queue,
            time.time() - seconds(given.min_age),
            given.error,
            given.work_ids,
            given.keys,
        )
        asked = Page(request, filter=given.SerializeToString(deterministic=True).hex())
        answer.matching = 0 if asked.last else items.count(tx, wanted)
        found, token = items.page(tx, asked, wanted, most=most)
        if request.dry_run:
            answer.items.extend(map(message, found[:EXAMPLES]))
            return []
        answer.next_page_token = token
        tx.after_commit(self._executor.wake)
        locked = (items.find(tx, item.id, lock=True) for item in found)
        return [item for item in locked if item is not None]  # None: it is done by now

    def _find(self, tx: Tx, work_id: str, *, lock: bool = False) -> Item:
        item = items.find(tx, work_id, lock=lock)
        if item is None:
            raise NotFound(resource=Resource("accord.ops.v1.WorkItem", work_id))
        return item


def message(item: Item) -> pb.WorkItem:
    """An item in the contract's words."""
    return pb.WorkItem(
        work_id=item.id,
        queue=item.queue,
        key=item.key,
        state=item_state(item),
        attempts=item.attempts,
        due_at=timestamp(item.due_at),
        created_at=timestamp(item.created_at),
        last_error=item.last_error,
    )


def retry_item(tx: Tx, item: Item, due_at: float | None = None) -> Item:
    """Make an item due, now or at a time, and return it as it is then.

    Raises:
        FailedPrecondition: it is being tried at this moment (WORK_IN_PROGRESS).
    """
    if not table.unpark(tx, item.id, time.time() if due_at is None else due_at):
        raise FailedPrecondition(
            "WORK_IN_PROGRESS", f"work {item.id} is being tried at this moment"
        )
    after = items.find(tx, item.id)
    assert after is not None  # It is locked.
    return after


def _discard(tx: Tx, item: Item) -> None:
    """Give an item up. Raises FailedPrecondition: SAGA_WORK or NOT_PARKED."""
    if _of_saga(item):
        raise FailedPrecondition(
            "SAGA_WORK", f"it is the next step of saga {item.key}; settle the saga itself"
        )
    if not table.discard(tx, item.id):
        raise FailedPrecondition("NOT_PARKED", f"work {item.id} is {item.state}")


def _note(tx: Tx, reason: str, item: Item, after: str) -> None:
    """Write an intervention down that is one of many; that of a saga's step is the saga's."""
    target = item.key if _of_saga(item) else item.id
    audit.record(tx, Intervention(target, reason, str(item), after))


def _of_saga(item: Item) -> bool:
    return item.queue.partition("/")[0] == SAGA_QUEUE


def seconds(length: Duration) -> float:
    """A duration of a request in seconds."""
    return length.ToNanoseconds() / 1e9


def state_of(wanted: "pb.WorkState.ValueType") -> State | None:
    """A state in the contract's words; None: any."""
    if wanted == pb.WORK_STATE_UNSPECIFIED:
        return None
    return State[pb.WorkState.Name(wanted).removeprefix("WORK_STATE_")]


def item_state(item: Item) -> "pb.WorkState.ValueType":
    """Where an item stands, in the contract's words."""
    return pb.WorkState.Value(f"WORK_STATE_{item.state.name}")
