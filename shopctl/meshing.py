"""What `shopctl policy`, `shopctl fault` and `shopctl mesh` do."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson

from accord.contract.overrides import OverrideRefused, parse
from accord.ops.v1.mesh_pb2 import (
    Breaker,
    BreakerPosition,
    Budget,
    ClearOverrideRequest,
    Fault,
    GetStateRequest,
    GetStateResponse,
    Hedge,
    InjectFaultRequest,
    Limit,
    Method,
    Override,
    Refused,
    SetOverrideRequest,
    Source,
)
from accord.v1.policy_pb2 import StatusCode
from shopctl import show
from shopctl.client import Shop
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.working import harmless

NO_FAULT: Final = Fault()


async def state(shop: Shop, service: str, prefix: str = "") -> GetStateResponse:
    """What the policies of a process do, as far as methods are concerned that begin so."""
    async with shop.calling(service):
        return await shop.mesh(service).GetState(GetStateRequest(method_prefix=prefix))


async def set_override(shop: Shop, service: str, method: str, text: str, reason: str) -> Method:
    """Puts an override into force; returns the method as it is then.

    Raises:
        CommandError: it is refused, here if it does not parse.
    """
    try:
        override = parse(method, text)
    except OverrideRefused as refusal:
        raise CommandError(f"the override {refusal.problem}", ExitCode.USAGE) from None
    request = SetOverrideRequest(method=method, override=override, reason=reason)
    async with shop.calling(service):
        return (await shop.mesh(service).SetOverride(request)).method


async def clear_override(shop: Shop, service: str, method: str, reason: str) -> Method:
    """Takes an override back; returns the method as it is then."""
    request = ClearOverrideRequest(method=method, reason=reason)
    async with shop.calling(service):
        return (await shop.mesh(service).ClearOverride(request)).method


def fault(
    *, delay: timedelta, delay_percent: int, abort: str, abort_percent: int, guarded: bool
) -> Fault:
    """A fault as it is sent; `abort` is the name of a status code, or empty.

    Raises:
        CommandError: there is no such code, or neither delay nor abort.
    """
    codes = {name.removeprefix("STATUS_CODE_"): number for name, number in StatusCode.items()}
    code = codes.get(abort.upper(), StatusCode.STATUS_CODE_OK_UNSPECIFIED)
    if abort and not code:
        raise CommandError(f"--abort {abort!r} is not the code of a failure", ExitCode.USAGE)
    if not (delay_percent or abort_percent):
        raise CommandError("give --delay, --abort or both; see also: fault clear", ExitCode.USAGE)
    return Fault(
        delay=_duration(delay),
        delay_percent=delay_percent,
        abort_code=code,
        abort_percent=abort_percent,
        guarded=guarded,
    )


async def inject(
    shop: Shop, service: str, method: str, wanted: Fault, lasting: timedelta, reason: str
) -> Method:
    """Makes a method misbehave, or with `NO_FAULT` behave; returns it as it is then."""
    request = InjectFaultRequest(
        method=method, fault=wanted, lasting=_duration(lasting), reason=reason
    )
    async with shop.calling(service):
        return (await shop.mesh(service).InjectFault(request)).method


def print_method(service: str, method: Method, as_json: bool) -> None:
    """A method in one line: what differs from its contract."""
    if as_json:
        show.as_json(method, service=service)
    else:
        said = "; ".join(_differences(method)) or "as its contract says"
        typer.echo(f"{service}  {method.method}  {said}")


def print_overrides(service: str, found: GetStateResponse, as_json: bool) -> None:
    """Overrides in force and overrides refused, one line each."""
    for method in found.methods:
        if method.HasField("override"):
            print_method(service, method, as_json)
    for refused in found.refused:
        if as_json:
            show.as_json(refused, service=service)
        else:
            typer.echo(f"{service}  {_refused(refused)}")


def print_state(service: str, found: GetStateResponse, as_json: bool) -> None:
    """Everything about a process; as JSON in one line."""
    if as_json:
        show.as_json(found)
        return
    typer.echo(f"{service}  {_limit(found.limit)}")
    for line in _lines(found):
        typer.echo(f"  {line}")


def _lines(found: GetStateResponse) -> Iterator[str]:
    yield from map(_breaker, found.breakers)
    yield from map(_budget, found.budgets)
    yield from map(_hedge, found.hedges)
    for method in found.methods:
        counts = [f"{name} {number}" for name, number in sorted(method.counts.items())]
        yield f"method   {method.method}  {'; '.join([*_differences(method), *counts])}"
    yield from map(_refused, found.refused)


def _differences(method: Method) -> Iterator[str]:
    if method.HasField("override"):
        yield f"{_source(method.source)} {_json(method.override)}"
    if method.HasField("fault"):
        yield f"fault {_json(method.fault)} for {_seconds(method.fault_ends_in)}"


def _limit(limit: Limit) -> str:
    return (
        f"{limit.in_flight} of {limit.limit} calls at work, {limit.queued} waiting;"
        f" {limit.streams} of {limit.stream_limit} streams open"
    )


def _breaker(breaker: Breaker) -> str:
    position = _name(BreakerPosition.items(), breaker.position, "BREAKER_POSITION_")
    left = f" for {_seconds(breaker.open_for)}" if breaker.open_for.ToNanoseconds() else ""
    return (
        f"breaker  {breaker.target}  {breaker.method}  {position}{left},"
        f" {breaker.failures} of {breaker.calls} failed"
    )


def _budget(budget: Budget) -> str:
    return (
        f"budget   {budget.target}  {budget.balance} retries left,"
        f" {budget.retries} made in {budget.calls} calls"
    )


def _hedge(hedge: Hedge) -> str:
    after = f"after {_seconds(hedge.delay)}" if hedge.HasField("delay") else "not yet"
    return (
        f"hedge    {hedge.target}  {hedge.method}  {after},"
        f" {hedge.sent} sent, {hedge.refused} refused by the budget"
    )


def _refused(refused: Refused) -> str:
    what = refused.method or "all of it"
    return f"refused  {harmless(what)}  {_source(refused.source)} {harmless(refused.problem)}"


def _source(source: "Source.ValueType") -> str:
    return _name(Source.items(), source, "SOURCE_")


def _name(known: Sequence[tuple[str, int]], number: int, prefix: str) -> str:
    """`OPEN`; the number of one that this version does not know."""
    names = {value: name for name, value in known}
    return names.get(number, str(number)).removeprefix(prefix)


def _json(message: Override | Fault) -> str:
    return MessageToJson(message, indent=None, preserving_proto_field_name=True)


def _seconds(duration: Duration) -> str:
    return f"{duration.ToNanoseconds() / 1e9:.3g} s"


def _duration(time: timedelta) -> Duration:
    found = Duration()
    found.FromTimedelta(time)
    return found
