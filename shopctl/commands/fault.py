"""`shopctl fault`."""

from datetime import timedelta
from typing import Annotated, Final

import typer

from accord.ops.v1.mesh_pb2 import ClearFaultRequest, Fault, InjectFaultRequest
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1.policy_pb2 import StatusCode
from shopctl.client import Shop, with_shop
from shopctl.commands.mesh import print_method
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import to_duration
from shopctl.options import (
    NO_AGE,
    MethodArgument,
    ReasonOption,
    ThroughOption,
    parse_duration,
    service_of,
)

app = typer.Typer(
    name="fault",
    no_args_is_help=True,
    help="Make a method slow or failing for a while, in the process that serves it.",
)

ALL: Final = 100


@app.command()
@with_shop
async def inject(
    shop: Shop,
    method: MethodArgument,
    reason: ReasonOption,
    delay: Annotated[
        timedelta,
        typer.Option(
            parser=parse_duration, metavar="TIME", show_default="none", help="200ms, 2s, 1m."
        ),
    ] = NO_AGE,
    delay_percent: Annotated[
        int, typer.Option(min=0, max=ALL, help="Share of calls that are delayed.")
    ] = ALL,
    abort: Annotated[
        str,
        typer.Option(metavar="CODE", show_default="none", help="A status code: UNAVAILABLE."),
    ] = "",
    abort_percent: Annotated[
        int, typer.Option(min=0, max=ALL, help="Share of calls that are aborted.")
    ] = ALL,
    lasting: Annotated[
        timedelta,
        typer.Option("--for", parser=parse_duration, metavar="TIME", help="At most 1h."),
    ] = timedelta(minutes=1),
    guarded: Annotated[
        bool,
        typer.Option("--guarded", help="Only calls that ask for it by metadata `accord-fault`."),
    ] = False,
    through: ThroughOption = None,
) -> None:
    """Inject a fault, in place of the one that the method has. It ends by itself.

    Exit code: 0 it is in force, 5 it is refused.
    """
    service = through or service_of(method)
    codes = {name.removeprefix("STATUS_CODE_"): number for name, number in StatusCode.items()}
    code = codes.get(abort.upper(), StatusCode.STATUS_CODE_OK_UNSPECIFIED)
    if abort and not code:
        raise CommandError(f"--abort {abort!r} is not the code of a failure", ExitCode.USAGE)
    fault = Fault(
        delay=to_duration(delay),
        delay_percent=delay_percent if delay else 0,
        abort_code=code,
        abort_percent=abort_percent if abort else 0,
        guarded=guarded,
    )
    if not (fault.delay_percent or fault.abort_percent):
        raise CommandError("give --delay, --abort or both; see also: fault clear", ExitCode.USAGE)
    request = InjectFaultRequest(
        method=method, fault=fault, lasting=to_duration(lasting), reason=reason
    )
    async with shop.calling(service) as channel:
        response = await MeshServiceStub(channel).InjectFault(request)
    print_method(shop, service, response.method)


@app.command()
@with_shop
async def clear(
    shop: Shop,
    method: MethodArgument,
    reason: ReasonOption,
    through: ThroughOption = None,
) -> None:
    """End the fault of a method; without one, nothing happens."""
    service = through or service_of(method)
    request = ClearFaultRequest(method=method, reason=reason)
    async with shop.calling(service) as channel:
        response = await MeshServiceStub(channel).ClearFault(request)
    print_method(shop, service, response.method)
