"""What the commands of `shopctl work` do."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import typer
from google.protobuf.duration_pb2 import Duration

import accord
from accord.ops.v1.work_pb2 import (
    DiscardWorkRequest,
    GetWorkRequest,
    GetWorkResponse,
    ListWorkRequest,
    RetryWorkRequest,
    WorkItem,
    WorkState,
)
from shopctl import show
from shopctl.client import Shop

MAX_PAGE: Final = 500
LINE: Final = 100
"""Characters of an error in a line of a list."""

# An error may quote what a stranger sent; a terminal must not obey it.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


async def items(
    shop: Shop,
    service: str,
    state: str | None,
    queue: str,
    min_age: timedelta,
    limit: int,
) -> AsyncIterator[WorkItem]:
    """Up to `limit` items of a service, oldest first, read page by page."""
    wanted = WorkState.Value(f"WORK_STATE_{(state or 'unspecified').upper()}")
    age = Duration()
    age.FromTimedelta(min_age)
    token = ""
    while limit > 0:
        async with shop.calling(service):
            page = await shop.work(service).ListWork(
                ListWorkRequest(
                    page_size=min(limit, MAX_PAGE),
                    page_token=token,
                    state=wanted,
                    queue=queue,
                    min_age=age,
                )
            )
        for item in page.items:
            yield item
        limit -= len(page.items)
        token = page.next_page_token
        if not token:
            break


async def get(shop: Shop, service: str, work_id: str) -> GetWorkResponse:
    """An item with its failures."""
    async with shop.calling(service):
        return await shop.work(service).GetWork(GetWorkRequest(work_id=work_id))


async def retry(shop: Shop, service: str, work_id: str, reason: str, key: str) -> WorkItem:
    """Tries it again; returns it as it is then."""
    async with shop.calling(service, key):
        response = await shop.work(service).RetryWork(
            RetryWorkRequest(work_id=work_id, reason=reason), metadata=accord.idempotency_key(key)
        )
    return response.item


async def discard(shop: Shop, service: str, work_id: str, reason: str, key: str) -> WorkItem:
    """Gives it up; returns it as it was."""
    async with shop.calling(service, key):
        response = await shop.work(service).DiscardWork(
            DiscardWorkRequest(work_id=work_id, reason=reason),
            metadata=accord.idempotency_key(key),
        )
    return response.item


def print_line(service: str, item: WorkItem, as_json: bool) -> None:
    """An item in one line."""
    if as_json:
        show.as_json(item, service=service)
        return
    error = harmless(item.last_error)
    if len(error) > LINE:
        error = f"{error[: LINE - 3]}..."
    line = (
        f"{item.work_id}  {show.moment(item.created_at)}  {state_name(item.state):<6}  "
        f"{service}  {item.queue}  {harmless(item.key)}  {attempts(item)}  {error}"
    )
    typer.echo(line.rstrip())


def print_all(found: GetWorkResponse, as_json: bool) -> None:
    """Everything about an item."""
    if as_json:
        show.as_json(found)
        return
    item = found.item
    show.fields(
        work=item.work_id,
        queue=item.queue,
        key=harmless(item.key),
        state=state_name(item.state),
        attempts=attempts(item),
        created=show.moment(item.created_at),
        due=show.moment(item.due_at) if item.state == WorkState.WORK_STATE_READY else "",
        owner=found.owner,
        waiting_for=found.held_up_by,
        behind_it=f"{found.behind} waiting" if found.behind else "",
        trace=found.traceparent,
        payload=f"{len(found.payload)} bytes" if found.payload else "",
    )
    for failure in found.history:
        typer.echo(
            f"{show.moment(failure.at)}  attempt {failure.attempt}  {harmless(failure.error)}"
        )


def attempts(item: WorkItem) -> str:
    """How often it has failed."""
    return f"failed {item.attempts}x"


def state_name(state: "WorkState.ValueType") -> str:
    """`PARKED`; the number of one that this version does not know."""
    if state not in WorkState.values():
        return str(state)
    return WorkState.Name(state).removeprefix("WORK_STATE_")


def harmless(text: str) -> str:
    """A text in one line that a terminal only prints."""
    return _CONTROL.sub(" ", text)
