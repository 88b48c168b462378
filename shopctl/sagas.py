"""What the commands of `shopctl saga` do."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import typer
from google.protobuf.duration_pb2 import Duration

import accord
from accord.ops.v1.saga_pb2 import (
    AbandonSagaRequest,
    CompensateSagaRequest,
    GetSagaRequest,
    GetSagaResponse,
    ListSagasRequest,
    RetrySagaRequest,
    Saga,
    SagaPhase,
    SkipStepRequest,
)
from shopctl import show, working
from shopctl.client import Shop

MAX_PAGE: Final = 500


async def sagas(
    shop: Shop, service: str, definition: str, phase: str | None, min_age: timedelta, limit: int
) -> AsyncIterator[Saga]:
    """Up to `limit` sagas, oldest first, read page by page."""
    wanted = SagaPhase.Value(f"SAGA_PHASE_{(phase or 'unspecified').upper()}")
    age = Duration()
    age.FromTimedelta(min_age)
    token = ""
    while limit > 0:
        async with shop.calling(service):
            page = await shop.sagas(service).ListSagas(
                ListSagasRequest(
                    page_size=min(limit, MAX_PAGE),
                    page_token=token,
                    definition=definition,
                    phase=wanted,
                    min_age=age,
                )
            )
        for saga in page.sagas:
            yield saga
        limit -= len(page.sagas)
        token = page.next_page_token
        if not token:
            break


async def get(shop: Shop, service: str, saga_id: str) -> GetSagaResponse:
    """A saga with its history and its work."""
    async with shop.calling(service):
        return await shop.sagas(service).GetSaga(GetSagaRequest(saga_id=saga_id))


async def retry(shop: Shop, service: str, saga_id: str, reason: str, key: str) -> Saga:
    """Tries its current step again."""
    request = RetrySagaRequest(saga_id=saga_id, reason=reason)
    async with shop.calling(service, key):
        response = await shop.sagas(service).RetrySaga(
            request, metadata=accord.idempotency_key(key)
        )
    return response.saga


async def skip(shop: Shop, service: str, saga_id: str, step: str, reason: str, key: str) -> Saga:
    """Takes a step for done."""
    request = SkipStepRequest(saga_id=saga_id, step=step, reason=reason)
    async with shop.calling(service, key):
        response = await shop.sagas(service).SkipStep(request, metadata=accord.idempotency_key(key))
    return response.saga


async def compensate(shop: Shop, service: str, saga_id: str, reason: str, key: str) -> Saga:
    """Turns it back."""
    request = CompensateSagaRequest(saga_id=saga_id, reason=reason)
    async with shop.calling(service, key):
        response = await shop.sagas(service).CompensateSaga(
            request, metadata=accord.idempotency_key(key)
        )
    return response.saga


async def abandon(shop: Shop, service: str, saga_id: str, reason: str, key: str) -> Saga:
    """Gives it up."""
    request = AbandonSagaRequest(saga_id=saga_id, reason=reason)
    async with shop.calling(service, key):
        response = await shop.sagas(service).AbandonSaga(
            request, metadata=accord.idempotency_key(key)
        )
    return response.saga


def print_line(saga: Saga, as_json: bool) -> None:
    """A saga in one line."""
    if as_json:
        show.as_json(saga)
        return
    line = (
        f"{saga.saga_id}  {show.moment(saga.created_at)}  {saga.definition}  "
        f"{phase_name(saga.phase):<9}  {saga.step}{_to_be_undone(saga)}"
    )
    typer.echo(line.rstrip())


def print_all(found: GetSagaResponse, as_json: bool) -> None:
    """Everything about a saga."""
    if as_json:
        show.as_json(found)
        return
    saga, work = found.saga, found.work
    waiting = found.HasField("work")
    show.fields(
        saga=saga.saga_id,
        kind=f"{saga.definition}, version {saga.version}",
        phase=phase_name(saga.phase) + _to_be_undone(saga),
        step=saga.step,
        work=f"{work.work_id} {working.state_name(work.state)}, {working.attempts(work)}"
        if waiting
        else "",
        last_error=working.harmless(work.last_error) if waiting else "",
        created=show.moment(saga.created_at),
        updated=show.moment(saga.updated_at),
    )
    for event in found.history:
        typer.echo(
            f"{show.moment(event.at)}  {event.step:<14}  {phase_name(event.phase):<8}  "
            f"{event.outcome}"
        )


def phase_name(phase: "SagaPhase.ValueType") -> str:
    """`FORWARD`; the number of one that this version does not know."""
    if phase not in SagaPhase.values():
        return str(phase)
    return SagaPhase.Name(phase).removeprefix("SAGA_PHASE_")


def _to_be_undone(saga: Saga) -> str:
    turning = saga.cancelled and saga.phase == SagaPhase.SAGA_PHASE_FORWARD
    return " (to be undone)" if turning else ""
