"""`shopctl mesh`, and what `policy` and `fault` print like it."""

from collections.abc import Iterator
from typing import Annotated, Final

import typer
from google.protobuf.json_format import MessageToJson

from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import Columns, enum_name, format_seconds
from shopctl.options import AnyServiceOption, complete_method
from shopctl.supervisor.programs import SERVICES

COLUMNS: Final = Columns(SERVICE=13, METHOD=52, POLICY=0)

app = typer.Typer()


@app.command()
@with_shop
async def mesh(
    shop: Shop,
    service: AnyServiceOption = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            autocompletion=complete_method,
            metavar="PREFIX",
            show_default="all",
            help="Only methods whose full name begins so.",
        ),
    ] = "",
) -> None:
    """Show what the policies of each process do: limits, breakers, budgets, hedges, overrides."""
    for name in [service] if service else SERVICES:
        found = await read_state(shop, name, method)
        lines = [f"  {line}" for line in _lines(found)]
        shop.print(found, f"{name}  {_limit(found.limit)}", *lines)


async def read_state(shop: Shop, service: str, prefix: str) -> pb.GetStateResponse:
    """What the policies of a process do, as far as methods are concerned that begin so."""
    async with shop.calling(service) as channel:
        return await MeshServiceStub(channel).GetState(pb.GetStateRequest(method_prefix=prefix))


def print_method(shop: Shop, service: str, method: pb.Method) -> None:
    """A method as a list of one."""
    with shop.listing("", COLUMNS) as row:
        row(method, COLUMNS.line(service, *method_cells(method)), service=service)


def method_cells(method: pb.Method) -> tuple[str, str]:
    """A method, and what differs from its contract."""
    return method.method, "; ".join(_differences(method)) or "as its contract says"


def refused_cells(refused: pb.Refused) -> tuple[str, str]:
    """A method, and the override of it that a process has refused."""
    said = f"{_source(refused.source)} is refused: {refused.problem}"
    return refused.method or "all methods", said


def _lines(found: pb.GetStateResponse) -> Iterator[str]:
    for breaker in found.breakers:
        position = enum_name(pb.BreakerPosition.items(), breaker.position)
        left = (
            f" for {format_seconds(breaker.open_for)}" if breaker.open_for.ToNanoseconds() else ""
        )
        yield (
            f"breaker  {breaker.target}  {breaker.method}  {position}{left},"
            f" {breaker.failures} of {breaker.calls} failed"
        )
    for budget in found.budgets:
        yield (
            f"budget   {budget.target}  {budget.balance} retries left,"
            f" {budget.retries} made in {budget.calls} calls"
        )
    for hedge in found.hedges:
        after = f"after {format_seconds(hedge.delay)}" if hedge.HasField("delay") else "not yet"
        yield (
            f"hedge    {hedge.target}  {hedge.method}  {after},"
            f" {hedge.sent} sent, {hedge.refused} refused by the budget"
        )
    for route in found.routes:
        resting = f", {len(route.resting)} resting" if route.resting else ""
        yield (
            f"route    {route.target}  {route.version}  weight {route.weight},"
            f" {', '.join(route.endpoints) or 'no endpoint'}{resting}"
        )
        yield from (f"rule     {route.target}  {rule}" for rule in route.rules)
    for method in found.methods:
        counts = [f"{name} {number}" for name, number in sorted(method.counts.items())]
        yield f"method   {method.method}  {'; '.join([*_differences(method), *counts])}"
    for refused in found.refused:
        yield f"refused  {'  '.join(refused_cells(refused))}"


def _differences(method: pb.Method) -> Iterator[str]:
    if method.HasField("override"):
        yield f"{_source(method.source)} {_json(method.override)}"
    if method.HasField("fault"):
        yield f"fault {_json(method.fault)} for {format_seconds(method.fault_ends_in)}"


def _limit(limit: pb.Limit) -> str:
    overloaded = f"overloaded by {format_seconds(limit.delay)}; " if limit.overloaded else ""
    return (
        f"{overloaded}{limit.in_flight} calls at work, {limit.queued} waiting;"
        f" {limit.streams} of {limit.stream_limit} streams open"
    )


def _source(source: int) -> str:
    return enum_name(pb.Source.items(), source)


def _json(message: pb.Override | pb.Fault) -> str:
    return MessageToJson(message, indent=None, preserving_proto_field_name=True)
