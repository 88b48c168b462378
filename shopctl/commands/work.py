"""`shopctl work`."""

from typing import Annotated, Final, Literal

import typer

from accord.ops.v1 import work_pb2 as pb
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from shopctl import bulk
from shopctl.client import Shop, each, with_shop
from shopctl.formatting import Columns, enum_name, format_fields, format_time, to_duration
from shopctl.options import (
    NO_AGE,
    AgeOption,
    AnyServiceOption,
    ErrorOption,
    GoOption,
    KeyOption,
    LimitOption,
    RateOption,
    ReasonOption,
    ServiceOption,
    StuckOption,
    services,
)
from shopctl.supervisor.status import duration

app = typer.Typer(
    name="work",
    no_args_is_help=True,
    help="Look at background work, and settle what is parked after too many failures.",
)

WorkArgument = Annotated[str, typer.Argument(metavar="ID", help="The item of work.")]
QueueOption = Annotated[str, typer.Option(metavar="NAME", help="Only work of this queue.")]

COLUMNS: Final = Columns(
    WORK=36, ENQUEUED=19, STATE=6, SERVICE=13, QUEUE=13, KEY=36, ATTEMPTS=10, LAST_ERROR=0
)

QUEUES: Final = Columns(
    SERVICE=13,
    QUEUE=20,
    WAITING=-11,
    IN_FLIGHT=-9,
    PARKED=-6,
    REFUSED=-7,
    OLDEST=-6,
    PROBLEM=0,
)

MAX_ERROR: Final = 100
"""Characters of an error in a line of a list."""


# Where an item can stand, as in the contract.
State = Literal["ready", "parked", "leased"]


@app.command("list")
@with_shop
async def list_work(
    shop: Shop,
    service: AnyServiceOption = None,
    state: Annotated[State | None, typer.Option(help="Only work that stands like this.")] = None,
    queue: QueueOption = "",
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
) -> None:
    """List work, oldest first; of every service, one after the other, unless one is named."""
    with shop.listing("work", COLUMNS) as row:

        async def listed(name: str) -> None:
            wanted = pb.ListWorkRequest(
                state=number(state), queue=queue, min_age=to_duration(min_age)
            )
            async for item in shop.rows(name, WorkServiceStub, "ListWork", wanted, limit):
                row(item, _line(name, item), service=name)

        await each([service] if service else services(), listed)


@app.command()
@with_shop
async def queues(shop: Shop, service: AnyServiceOption = None) -> None:
    """Show how much work each queue has; of every service, unless one is named.

    `outbox`: events that the broker has not got yet; `outbox:NAME`: commands that nobody has taken.
    """
    with shop.listing("queues", QUEUES) as row:

        async def listed(name: str) -> None:
            async with shop.calling(name) as channel:
                found = await WorkServiceStub(channel).GetQueues(pb.GetQueuesRequest())
            for queue in found.queues:
                age = queue.oldest_age.ToTimedelta().total_seconds()
                oldest = duration(age if queue.HasField("oldest_age") else None)
                most = f"/{queue.max_waiting}" if queue.max_waiting else ""
                counts = (str(queue.in_flight), str(queue.parked), str(queue.refused))
                cells = (name, queue.queue, f"{queue.waiting}{most}", *counts, oldest)
                row(queue, QUEUES.line(*cells, queue.problem), service=name)

        await each([service] if service else services(), listed)


@app.command()
@with_shop
async def show(shop: Shop, work_id: WorkArgument, service: ServiceOption) -> None:
    """Show an item with its failures."""
    async with shop.calling(service) as channel:
        found = await WorkServiceStub(channel).GetWork(pb.GetWorkRequest(work_id=work_id))
    item = found.item
    fields = format_fields(
        work=item.work_id,
        queue=item.queue,
        key=item.key,
        state=enum_name(pb.WorkState.items(), item.state),
        attempts=attempts(item),
        created=format_time(item.created_at),
        due=format_time(item.due_at) if item.state == pb.WorkState.WORK_STATE_READY else "",
        owner=found.owner,
        waiting_for=found.held_up_by,
        behind_it=f"{found.behind} waiting" if found.behind else "",
        trace=found.traceparent,
        payload=f"{len(found.payload)} bytes" if found.payload else "",
    )
    history = [
        f"{format_time(failure.at)}  attempt {failure.attempt}  {failure.error}"
        for failure in found.history
    ]
    shop.print(found, *fields, *history)


@app.command()
@with_shop
async def retry(
    shop: Shop,
    service: ServiceOption,
    reason: ReasonOption,
    work_id: WorkArgument = "",
    state: StuckOption = "parked",
    queue: QueueOption = "",
    error: ErrorOption = "",
    min_age: AgeOption = NO_AGE,
    rate: RateOption = 20,
    go: GoOption = False,
    key: KeyOption = "",
) -> None:
    """Try an item again, now and with all its attempts; without an ID, all that are found.

    Exit code: 0 it is due, 5 there is no such item (any more), or it is being tried right now.
    """
    with shop.listing("", COLUMNS) as row:

        def show(item: pb.WorkItem) -> None:
            row(item, _line(service, item), service=service)

        if work_id:
            request = pb.RetryWorkRequest(work_id=work_id, reason=reason)
            show((await shop.change(service, WorkServiceStub, "RetryWork", request, key)).item)
            return
        wanted = pb.WorkFilter(
            state=number(state), queue=queue, min_age=to_duration(min_age), error=error
        )
        await bulk.retry(shop, service, [wanted], show, reason=reason, rate=rate, key=key, go=go)


@app.command()
@with_shop
async def discard(
    shop: Shop,
    work_id: WorkArgument,
    service: ServiceOption,
    reason: ReasonOption,
    key: KeyOption = "",
) -> None:
    """Give a parked item up, for good. The work behind it goes on; the item is printed.

    Exit code: 0 it is gone, 5 there is no such item, or it is not parked.
    """
    request = pb.DiscardWorkRequest(work_id=work_id, reason=reason)
    item = (await shop.change(service, WorkServiceStub, "DiscardWork", request, key)).item
    with shop.listing("", COLUMNS) as row:
        row(item, _line(service, item), service=service)


def number(state: str | None) -> "pb.WorkState.ValueType":
    """A state in the contract's words."""
    return pb.WorkState.Value(f"WORK_STATE_{(state or 'unspecified').upper()}")


def attempts(item: pb.WorkItem) -> str:
    """How often it has failed."""
    return f"failed {item.attempts}x"


def _line(service: str, item: pb.WorkItem) -> str:
    error = item.last_error
    if len(error) > MAX_ERROR:
        error = f"{error[: MAX_ERROR - 3]}..."
    state = enum_name(pb.WorkState.items(), item.state)
    at = format_time(item.created_at)
    queue = (service, item.queue, item.key)
    return COLUMNS.line(item.work_id, at, state, *queue, attempts(item), error)
