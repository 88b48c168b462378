"""`shopctl policy`."""

from typing import Annotated

import typer

from accord.contract.live_overrides import OverrideRefused, parse
from accord.ops.v1.mesh_pb2 import ClearOverrideRequest, SetOverrideRequest
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from shopctl.client import Shop, with_shop
from shopctl.commands.mesh import COLUMNS, method_cells, print_method, read_state, refused_cells
from shopctl.errors import CommandError, ExitCode
from shopctl.options import (
    AnyServiceOption,
    MethodArgument,
    ReasonOption,
    ThroughOption,
    complete_method,
    service_of,
)
from shopctl.supervisor.programs import SERVICES

app = typer.Typer(
    name="policy",
    no_args_is_help=True,
    help="Look at live policy, and change it: every process follows within a second.",
)


@app.command("get")
@with_shop
async def get(
    shop: Shop,
    method: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_method,
            metavar="[METHOD]",
            show_default="all",
            help="Only of this method.",
        ),
    ] = "",
    service: AnyServiceOption = None,
) -> None:
    """Show the overrides that are in force in each process, and those that it has refused."""
    with shop.listing("overrides", COLUMNS) as row:
        for name in [service] if service else SERVICES:
            found = await read_state(shop, name, method)
            for each in found.methods:
                if each.HasField("override"):
                    row(each, COLUMNS.line(name, *method_cells(each)), service=name)
            for refused in found.refused:
                row(refused, COLUMNS.line(name, *refused_cells(refused)), service=name)


@app.command("set")
@with_shop
async def set_override(
    shop: Shop,
    method: MethodArgument,
    override: Annotated[
        str,
        typer.Argument(
            metavar="JSON",
            help='What differs from the contract, e.g. \'{"policy": {"timeout": "2s"},'
            ' "dark": ["DARK_POLICY_HEDGE"]}\'; the same as in a policy file.',
        ),
    ],
    reason: ReasonOption,
    through: ThroughOption = None,
) -> None:
    """Put an override into force in the whole mesh; it replaces the method's last one.

    Exit code: 0 it is in force, 5 it is refused: it does not parse, contradicts itself, or weakens
    a floor of the contract.
    """
    service = through or service_of(method)
    try:
        parsed = parse(method, override)
    except OverrideRefused as refusal:
        raise CommandError(f"the override {refusal.problem}", ExitCode.USAGE) from None
    request = SetOverrideRequest(method=method, override=parsed, reason=reason)
    async with shop.calling(service) as channel:
        response = await MeshServiceStub(channel).SetOverride(request)
    print_method(shop, service, response.method)


@app.command()
@with_shop
async def clear(
    shop: Shop,
    method: MethodArgument,
    reason: ReasonOption,
    through: ThroughOption = None,
) -> None:
    """Take a method's override back. What a policy file says stays in force."""
    service = through or service_of(method)
    request = ClearOverrideRequest(method=method, reason=reason)
    async with shop.calling(service) as channel:
        response = await MeshServiceStub(channel).ClearOverride(request)
    print_method(shop, service, response.method)
