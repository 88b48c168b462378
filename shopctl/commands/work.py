"""`shopctl work`."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import typer
from grpc.aio import Channel

import accord
from accord.ops.v1 import work_pb2 as pb
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import enum_name, format_fields, format_time, to_duration
from shopctl.options import (
    NO_AGE,
    AgeOption,
    AnyServiceOption,
    KeyOption,
    LimitOption,
    ReasonOption,
    ServiceOption,
)
from shopctl.supervisor.programs import SERVICES

app = typer.Typer(
    name="work",
    no_args_is_help=True,
    help="Look at background work, and settle what is parked after too many failures.",
)

WorkArgument = Annotated[str, typer.Argument(metavar="ID", help="The item of work.")]

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
    queue: Annotated[str, typer.Option(metavar="NAME", help="Only work of this queue.")] = "",
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
) -> None:
    """List work, oldest first; of every service, one after the other, unless one is named."""
    wanted = pb.WorkState.Value(f"WORK_STATE_{(state or 'unspecified').upper()}")
    age = to_duration(min_age)

    async def read(channel: Channel, size: int, token: str) -> tuple[Sequence[pb.WorkItem], str]:
        page = await WorkServiceStub(channel).ListWork(
            pb.ListWorkRequest(
                page_size=size, page_token=token, state=wanted, queue=queue, min_age=age
            )
        )
        return page.items, page.next_page_token

    for name in [service] if service else SERVICES:
        async for item in shop.rows(name, read, limit):
            shop.print(item, _line(name, item), service=name)


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
    work_id: WorkArgument,
    service: ServiceOption,
    reason: ReasonOption,
    key: KeyOption = "",
) -> None:
    """Try an item again, now and with all its attempts.

    Exit code: 0 it is due, 5 there is no such item (any more), or it is being tried right now.
    """
    request = pb.RetryWorkRequest(work_id=work_id, reason=reason)
    async with shop.calling(service, key) as channel:
        response = await WorkServiceStub(channel).RetryWork(
            request, metadata=accord.idempotency_key(key)
        )
    shop.print(response.item, _line(service, response.item), service=service)


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
    async with shop.calling(service, key) as channel:
        response = await WorkServiceStub(channel).DiscardWork(
            request, metadata=accord.idempotency_key(key)
        )
    shop.print(response.item, _line(service, response.item), service=service)


def attempts(item: pb.WorkItem) -> str:
    """How often it has failed."""
    return f"failed {item.attempts}x"


def _line(service: str, item: pb.WorkItem) -> str:
    error = item.last_error
    if len(error) > MAX_ERROR:
        error = f"{error[: MAX_ERROR - 3]}..."
    state = enum_name(pb.WorkState.items(), item.state)
    line = (
        f"{item.work_id}  {format_time(item.created_at)}  {state:<6}  "
        f"{service}  {item.queue}  {item.key}  {attempts(item)}  {error}"
    )
    return line.rstrip()
