"""`shopctl saga`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from google.protobuf.message import Message
from grpc.aio import Channel

import accord
from accord.ops.v1 import saga_pb2 as pb
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2 import WorkState
from shopctl.client import Shop, with_shop
from shopctl.commands.work import attempts
from shopctl.formatting import enum_name, format_fields, format_time, to_duration
from shopctl.options import NO_AGE, AgeOption, KeyOption, LimitOption, ReasonOption, ServiceOption

app = typer.Typer(
    name="saga",
    no_args_is_help=True,
    help="Look at sagas, and settle those that cannot go on by themselves.",
)

SagaArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The saga; an order's has the order's id.")
]


# Which way a saga can go and how it can end, as in the contract.
Phase = Literal["forward", "backward", "done", "undone", "abandoned"]


@app.command("list")
@with_shop
async def list_sagas(
    shop: Shop,
    definition: Annotated[
        str, typer.Option(metavar="NAME", help="Only sagas of this kind, e.g. order.")
    ] = "",
    phase: Annotated[Phase | None, typer.Option(help="Only sagas in this phase.")] = None,
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
    service: ServiceOption = "orders",
) -> None:
    """List sagas, oldest first."""
    wanted = pb.SagaPhase.Value(f"SAGA_PHASE_{(phase or 'unspecified').upper()}")
    age = to_duration(min_age)

    async def read(channel: Channel, size: int, token: str) -> tuple[Sequence[pb.Saga], str]:
        page = await SagaServiceStub(channel).ListSagas(
            pb.ListSagasRequest(
                page_size=size, page_token=token, definition=definition, phase=wanted, min_age=age
            )
        )
        return page.sagas, page.next_page_token

    async for saga in shop.rows(service, read, limit):
        shop.print(saga, _line(saga))


@app.command()
@with_shop
async def show(shop: Shop, saga_id: SagaArgument, service: ServiceOption = "orders") -> None:
    """Show a saga: where it stands, what came of its steps, and its last error."""
    found = await _get(shop, service, saga_id)
    saga, work = found.saga, found.work
    waiting, state = found.HasField("work"), enum_name(WorkState.items(), work.state)
    fields = format_fields(
        saga=saga.saga_id,
        kind=f"{saga.definition}, version {saga.version}",
        phase=enum_name(pb.SagaPhase.items(), saga.phase) + _to_be_undone(saga),
        step=saga.step,
        work=f"{work.work_id} {state}, {attempts(work)}" if waiting else "",
        last_error=work.last_error if waiting else "",
        created=format_time(saga.created_at),
        updated=format_time(saga.updated_at),
    )
    history = [
        f"{format_time(event.at)}  {event.step:<14}  "
        f"{enum_name(pb.SagaPhase.items(), event.phase):<8}  {event.outcome}"
        for event in found.history
    ]
    shop.print(found, *fields, *history)


@app.command()
@with_shop
async def retry(
    shop: Shop,
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
) -> None:
    """Try the current step again, now and with all its attempts.

    Exit code: 0 it is due, 5 the saga has ended, or the step is being tried right now.
    """
    request = pb.RetrySagaRequest(saga_id=saga_id, reason=reason)
    await _settle(shop, service, key, "RetrySaga", request)


@app.command()
@with_shop
async def skip(
    shop: Shop,
    saga_id: SagaArgument,
    reason: ReasonOption,
    step: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default="the current one",
            help="The step that was seen to by other means.",
        ),
    ] = "",
    service: ServiceOption = "orders",
    key: KeyOption = "",
) -> None:
    """Take the current step, which is parked, for done without calling it.

    Exit code: 0 the saga goes on, 5 it is not parked, at another step, or the step cannot be
    skipped.
    """
    current = step or (await _get(shop, service, saga_id)).saga.step
    request = pb.SkipStepRequest(saga_id=saga_id, step=current, reason=reason)
    await _settle(shop, service, key, "SkipStep", request)


@app.command()
@with_shop
async def compensate(
    shop: Shop,
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
) -> None:
    """Turn a saga back: what was done is undone in the background.

    Exit code: 0 it is being undone, 5 it is too late.
    """
    request = pb.CompensateSagaRequest(saga_id=saga_id, reason=reason)
    await _settle(shop, service, key, "CompensateSaga", request)


@app.command()
@with_shop
async def abandon(
    shop: Shop,
    saga_id: SagaArgument,
    reason: ReasonOption,
    service: ServiceOption = "orders",
    key: KeyOption = "",
) -> None:
    """Give a saga up as it stands. What it has left behind is yours to settle.

    Exit code: 0 nothing more happens to it, 5 it has ended before.
    """
    request = pb.AbandonSagaRequest(saga_id=saga_id, reason=reason)
    await _settle(shop, service, key, "AbandonSaga", request)


async def _get(shop: Shop, service: str, saga_id: str) -> pb.GetSagaResponse:
    async with shop.calling(service) as channel:
        return await SagaServiceStub(channel).GetSaga(pb.GetSagaRequest(saga_id=saga_id))


async def _settle(shop: Shop, service: str, key: str, rpc: str, request: Message) -> None:
    """Calls an RPC that changes a saga, and prints it as it is then."""
    async with shop.calling(service, key) as channel:
        call = getattr(SagaServiceStub(channel), rpc)
        response = await call(request, metadata=accord.idempotency_key(key))
    shop.print(response.saga, _line(response.saga))


def _line(saga: pb.Saga) -> str:
    line = (
        f"{saga.saga_id}  {format_time(saga.created_at)}  {saga.definition}  "
        f"{enum_name(pb.SagaPhase.items(), saga.phase):<9}  {saga.step}{_to_be_undone(saga)}"
    )
    return line.rstrip()


def _to_be_undone(saga: pb.Saga) -> str:
    turning = saga.cancelled and saga.phase == pb.SagaPhase.SAGA_PHASE_FORWARD
    return " (to be undone)" if turning else ""
