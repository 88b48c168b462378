"""`shopctl operation`."""

from importlib import import_module
from pkgutil import walk_packages
from typing import Annotated, Final, Literal

import typer

import shop as contracts
from accord.ops.v1 import operation_pb2 as pb
from accord.ops.v1.operation_pb2_grpc import OperationServiceStub
from shopctl.client import Shop, with_shop
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import Columns, enum_name, format_time
from shopctl.options import AnyServiceOption, LimitOption, ServiceOption
from shopctl.supervisor.programs import SERVICES

app = typer.Typer(
    name="operation", no_args_is_help=True, help="Follow jobs that take longer than a call."
)

COLUMNS: Final = Columns(OPERATION=36, BEGUN=19, STATE=9, SERVICE=13, KIND=16, DONE=8, ERROR=0)

OperationArgument = Annotated[str, typer.Argument(metavar="ID", help="The operation.")]
# Where an operation can stand, as in the contract.
State = Literal["running", "succeeded", "failed", "cancelled"]


@app.command("list")
@with_shop
async def list_operations(
    shop: Shop,
    service: AnyServiceOption = None,
    state: Annotated[State | None, typer.Option(help="Only what stands like this.")] = None,
    limit: LimitOption = 50,
) -> None:
    """List operations, newest first; of every service, one after the other, unless one is named."""
    wanted = pb.OperationState.Value(f"OPERATION_STATE_{(state or 'unspecified').upper()}")
    with shop.listing("operations", COLUMNS) as row:
        for name in [service] if service else SERVICES:
            request = pb.ListOperationsRequest(state=wanted)
            found = shop.rows(name, OperationServiceStub, "ListOperations", request, limit)
            async for operation in found:
                row(operation, _line(name, operation), service=name)


@app.command()
@with_shop
async def watch(shop: Shop, operation_id: OperationArgument, service: ServiceOption) -> None:
    """Follow an operation to its end, over restarts of the service; --json shows its result.

    Exit code: 0 it has succeeded, 5 it has failed or was cancelled.
    """
    await follow(shop, service, operation_id)


@app.command()
@with_shop
async def cancel(shop: Shop, operation_id: OperationArgument, service: ServiceOption) -> None:
    """End an operation, unless it has ended; it is printed as it stands then."""
    async with shop.calling(service) as channel:
        request = pb.CancelOperationRequest(operation_id=operation_id)
        found = (await OperationServiceStub(channel).CancelOperation(request)).operation
    shop.print(found, _line(service, found), service=service)


async def follow(
    shop: Shop, service: str, operation_id: str, *, quietly: bool = False
) -> pb.Operation:
    """Prints an operation until it has ended, unless `quietly`, and returns it.

    Raises:
        CommandError: it has ended, but has not succeeded.
    """
    request = pb.WatchOperationRequest(operation_id=operation_id)
    last = pb.Operation()
    async with shop.calling(service) as channel:
        async for update in OperationServiceStub(channel).WatchOperation(request):
            last = update.operation
            if quietly:
                continue
            if last.HasField("response"):
                _know_all_messages()
            shop.print(last, _line(service, last), service=service)
    if last.state != pb.OPERATION_STATE_SUCCEEDED:
        why = last.error.message or "cancelled"
        raise CommandError(f"operation {operation_id}: {why}", ExitCode.REFUSED)
    return last


def _line(service: str, operation: pb.Operation) -> str:
    state = enum_name(pb.OperationState.items(), operation.state)
    units = f"{operation.done_units}/{operation.total_units or '?'}"
    at, what = format_time(operation.created_at), (service, operation.kind, units)
    return COLUMNS.line(operation.operation_id, at, state, *what, operation.error.message)


def _know_all_messages() -> None:
    """A result may be of any type; to print it as JSON, its type must have been imported."""
    for module in walk_packages(contracts.__path__, "shop."):
        if module.name.endswith("_pb2"):
            import_module(module.name)
