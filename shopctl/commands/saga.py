"""`shopctl saga`."""

from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Final, Literal

import grpc
import typer
from google.protobuf.message import Message

from accord.ops.v1 import saga_pb2 as pb
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2 import WorkFilter, WorkItem, WorkState
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.orders.v1.orders_pb2 import GetOrderRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shopctl import bulk
from shopctl.client import Shop, with_shop
from shopctl.commands.work import attempts, number
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import Columns, enum_name, format_fields, format_time, to_duration
from shopctl.options import (
    NO_AGE,
    AgeOption,
    ErrorOption,
    GoOption,
    KeyOption,
    LimitOption,
    RateOption,
    ReasonOption,
    ServiceOption,
    StuckOption,
)

app = typer.Typer(
    name="saga",
    no_args_is_help=True,
    help="Look at sagas, and settle those that cannot go on by themselves.",
)

COLUMNS: Final = Columns(SAGA=36, BEGUN=19, KIND=8, PHASE=9, STEP=0)

SagaArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The saga; an order's has the order's id.")
]


# Which way a saga can go and how it can end, as in the contract.
Phase = Literal["forward", "backward", "done", "undone", "abandoned"]
PhaseOption = Annotated[Phase | None, typer.Option(help="Only sagas in this phase.")]
DefinitionOption = Annotated[
    str, typer.Option(metavar="NAME", help="Only sagas of this kind, e.g. order.")
]


@app.command("list")
@with_shop
async def list_sagas(
    shop: Shop,
    definition: DefinitionOption = "",
    phase: PhaseOption = None,
    min_age: AgeOption = NO_AGE,
    limit: LimitOption = 50,
    service: ServiceOption = "orders",
) -> None:
    """List sagas, oldest first."""
    wanted = _wanted(definition, phase, min_age)
    with shop.listing("sagas", COLUMNS) as row:
        async for saga in shop.rows(service, SagaServiceStub, "ListSagas", wanted, limit):
            row(saga, _line(saga))


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
    reason: ReasonOption,
    saga_id: SagaArgument = "",
    definition: DefinitionOption = "",
    phase: PhaseOption = None,
    state: StuckOption = "parked",
    error: ErrorOption = "",
    min_age: AgeOption = NO_AGE,
    rate: RateOption = 20,
    go: GoOption = False,
    service: ServiceOption = "orders",
    key: KeyOption = "",
) -> None:
    """Try the current step again, now and with all its attempts; without an ID, of all found.

    Exit code: 0 it is due, 5 the saga has ended, or the step is being tried right now.
    """
    if saga_id:
        request = pb.RetrySagaRequest(saga_id=saga_id, reason=reason)
        await _settle(shop, service, key, "RetrySaga", request)
        return
    with shop.listing("", COLUMNS) as row:
        wanted = _wanted(definition, phase, min_age)
        wanted.work_state = number(state)
        listed = shop.rows(service, SagaServiceStub, "ListSagas", wanted)
        sagas = {saga.saga_id: saga async for saga in listed}
        queues: dict[str, list[str]] = {}
        for saga in sagas.values():
            later = f"/{saga.definition}/{saga.version}" if saga.version > 1 else ""
            queues.setdefault(f"saga{later}", []).append(saga.saga_id)
        filters = [
            WorkFilter(
                state=wanted.work_state,
                queue=queue,
                error=error,
                keys=ids[start : start + bulk.KEYS],
            )
            for queue, ids in queues.items()
            for start in range(0, len(ids), bulk.KEYS)
        ]

        def show(item: WorkItem) -> None:
            row(sagas[item.key], _line(sagas[item.key]))

        await bulk.retry(shop, service, filters, show, reason=reason, rate=rate, key=key, go=go)


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
        try:
            return await SagaServiceStub(channel).GetSaga(pb.GetSagaRequest(saga_id=saga_id))
        except grpc.RpcError as error:
            if service == "orders" and error.code() is grpc.StatusCode.NOT_FOUND:
                await _say_if_choreographed(channel, saga_id)
            raise


async def _say_if_choreographed(channel: grpc.aio.Channel, order_id: str) -> None:
    """Ends the command if there is an order that needs no saga."""
    with suppress(grpc.RpcError):
        request = GetOrderRequest(order_id=order_id)
        order = (await OrderServiceStub(channel).GetOrder(request)).order
        if order.fulfilment == FULFILMENT_CHOREOGRAPHED:
            raise CommandError(
                f"order {order_id} is choreographed, so it has no saga; what it waits for is work "
                f"with its id as key: shopctl work list",
                ExitCode.REFUSED,
            )


async def _settle(shop: Shop, service: str, key: str, rpc: str, request: Message) -> None:
    """Calls an RPC that changes a saga, and prints it as it is then."""
    saga = (await shop.change(service, SagaServiceStub, rpc, request, key)).saga
    with shop.listing("", COLUMNS) as row:
        row(saga, _line(saga))


def _wanted(definition: str, phase: str | None, min_age: timedelta) -> pb.ListSagasRequest:
    number = pb.SagaPhase.Value(f"SAGA_PHASE_{(phase or 'unspecified').upper()}")
    return pb.ListSagasRequest(definition=definition, phase=number, min_age=to_duration(min_age))


def _line(saga: pb.Saga) -> str:
    phase, step = enum_name(pb.SagaPhase.items(), saga.phase), f"{saga.step}{_to_be_undone(saga)}"
    return COLUMNS.line(saga.saga_id, format_time(saga.created_at), saga.definition, phase, step)


def _to_be_undone(saga: pb.Saga) -> str:
    turning = saga.cancelled and saga.phase == pb.SagaPhase.SAGA_PHASE_FORWARD
    return " (to be undone)" if turning else ""
