"""`shopctl fault`."""

from datetime import timedelta
from typing import Annotated, Final

import typer

from accord.ops.v1.mesh_pb2 import ClearFaultRequest, Fault, InjectFaultRequest
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1.policy_pb2 import StatusCode
from shopctl.client import Shop, with_shop
from shopctl.commands.mesh import print_method, read_state
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import Columns, enum_name, format_seconds, to_duration
from shopctl.options import (
    NO_AGE,
    AnyServiceOption,
    MethodArgument,
    ReasonOption,
    ThroughOption,
    parse_duration,
    service_of,
)
from shopctl.supervisor.programs import SERVICES

app = typer.Typer(
    name="fault",
    no_args_is_help=True,
    help="Make a method slow or failing for a while, in the process that serves it.",
)

ALL: Final = 100
CODES: Final = {name.removeprefix("STATUS_CODE_"): code for name, code in StatusCode.items()}

COLUMNS: Final = Columns(SERVICE=13, METHOD=52, FAULT=30, LEFT=-6, WHO=10, REASON=0)


def _complete_code(incomplete: str) -> list[str]:
    return [name for name, number in CODES.items() if number and name.startswith(incomplete)]


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
        typer.Option(
            autocompletion=_complete_code,
            metavar="CODE",
            show_default="none",
            help="A status code: UNAVAILABLE.",
        ),
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
    code = CODES.get(abort.upper(), StatusCode.STATUS_CODE_OK_UNSPECIFIED)
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


@app.command("list")
@with_shop
async def list_faults(shop: Shop, service: AnyServiceOption = None) -> None:
    """List the faults that are injected now: where, what, for how long, by whom and why."""
    with shop.listing("faults", COLUMNS) as row:
        for name in [service] if service else SERVICES:
            for each in (await read_state(shop, name, "")).methods:
                if each.HasField("fault"):
                    left, who = format_seconds(each.fault_ends_in), each.fault_principal
                    cells = (name, each.method, _said(each.fault), left, who, each.fault_reason)
                    row(each, COLUMNS.line(*cells), service=name)


def _said(fault: Fault) -> str:
    """`delay 2 s, 50 %; UNAVAILABLE, 10 %; guarded`."""
    parts = []
    if fault.delay_percent:
        parts.append(f"delay {format_seconds(fault.delay)}, {fault.delay_percent} %")
    if fault.abort_percent:
        code = enum_name(StatusCode.items(), fault.abort_code).removeprefix("STATUS_CODE_")
        parts.append(f"{code}, {fault.abort_percent} %")
    return "; ".join([*parts, *(["guarded"] if fault.guarded else [])])


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
