"""`shopctl order trace`: who called whom, what came of it, when, how long, and where it waited."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from accord.ops.v1 import trace_pb2 as pb
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from accord_runtime.telemetry.trace_tree import (
    STATUS,
    Line,
    Recorded,
    milliseconds,
    summary,
    synchronous,
    tree,
)
from shopctl.client import Shop, with_shop
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import format_time
from shopctl.supervisor.programs import SERVICES
from shopctl.terminal import as_text, harmless, wants_colour, width

HANDLED: Final = "█"
CALLED: Final = "▒"
WAITED: Final = "·"

_MAX_CALL: Final = 60
_MIN_BAR: Final = 20


@with_shop
async def trace(
    shop: Shop,
    order_id: Annotated[str, typer.Argument(metavar="ID", help="The order.")],
    call: Annotated[
        bool, typer.Option("--call", help="Only what whoever placed it has waited for.")
    ] = False,
) -> None:
    """Show what an order took, to its mails, as a timeline: calls, attempts, events, work.

    Every service keeps its spans, restarts included; no collector is needed.

    Exit code: 0 shown, 5 there is no such order, or its spans are gone.
    """
    async with shop.calling("orders") as channel:
        request = pb.FindTracesRequest(key=order_id)
        traces = (await TraceServiceStub(channel).FindTraces(request)).traces
    if not traces:
        raise CommandError(f"there is no order {order_id}", ExitCode.REFUSED)
    printed = False
    for each in traces[:1] if call else traces:
        printed |= await _print_trace(shop, each, everything=not call)
    if not printed:
        raise CommandError(
            f"no service has spans of order {order_id} any more: they keep some, for some days",
            ExitCode.REFUSED,
        )


async def _print_trace(shop: Shop, found: pb.FoundTrace, *, everything: bool) -> bool:
    answers = await asyncio.gather(*(_spans(shop, name, found.trace_id) for name in SERVICES))
    silent = [name for name, spans in zip(SERVICES, answers, strict=True) if spans is None]
    lines = tree(span for spans in answers for span in spans or ())
    shown = lines if everything else synchronous(lines)
    if shop.as_json:
        for line in shown:
            shop.print(line.recorded.span, service=line.recorded.service)
    elif shown:
        events = ", ".join(name.rpartition(".")[2] for name in found.event_types)
        typer.echo(f"trace {found.trace_id}  {format_time(found.at)}  {events}")
        typer.echo(timeline(shown, colour=wants_colour(), width=width()))
        if everything:
            typer.echo(summary(shown))
    if silent:
        typer.echo(f"shopctl: no answer from {', '.join(silent)}", err=True)
    return bool(shown)


async def _spans(shop: Shop, service: str, trace_id: str) -> list[Recorded] | None:
    """The spans that a service still has, or None if it does not answer."""
    spans = shop.rows(
        service, TraceServiceStub, "ListSpans", pb.ListSpansRequest(trace_id=trace_id)
    )
    try:
        return [Recorded(service, span) async for span in spans]
    except CommandError:
        return None


def timeline(lines: Sequence[Line], *, colour: bool, width: int) -> str:
    """The spans as text: a row per span, and below it what it had to go through."""
    first = min(line.recorded.start for line in lines)
    length = max(1, max(line.recorded.end for line in lines) - first)
    calls = [("  " * line.depth + harmless(line.recorded.what))[:_MAX_CALL] for line in lines]
    times = [milliseconds(line.recorded.end - line.recorded.start) for line in lines]
    statuses = [harmless(line.recorded.span.attributes.get(STATUS, "")) for line in lines]
    call_width, time_width = max(map(len, calls)), max(map(len, (*times, "TIME")))
    columns = width - call_width - time_width - max(map(len, (*statuses, "STATUS"))) - 6
    columns = max(_MIN_BAR, columns)

    def column(at: int) -> int:
        return min(columns - 1, max(0, (at - first) * columns // length))

    heading = f"0 to {milliseconds(length)}"
    out = Text(
        f"{'CALL':<{call_width}}  {heading:<{columns}}  {'TIME':>{time_width}}  STATUS\n",
        style="bold",
    )
    for line, call, time, status in zip(lines, calls, times, statuses, strict=True):
        span = line.recorded.span
        style = "red" if span.error else ""
        out.append(f"{call:<{call_width}}  ", "not bold")
        bar = _bar(line.recorded, column)[:columns]
        out.append(f"{bar:<{columns}}", f"not bold {style or 'cyan'}")
        out.append(f"  {time:>{time_width}}  ", "not bold")
        out.append(f"{status}\n", f"not bold {style}")
        for note in line.recorded.notes():
            out.append(f"{'  ' * line.depth}  {harmless(note)}\n", "not bold dim")
    return as_text(out, colour=colour, width=width, soft_wrap=True)


def _bar(recorded: Recorded, column: Callable[[int], int]) -> str:
    """Solid where a call was handled, light where it was waited for, dots between attempts.

    `column` is that of a time in nanoseconds.
    """
    start, end = column(recorded.start), column(recorded.end)
    if recorded.span.kind != pb.SpanKind.SPAN_KIND_CLIENT or recorded.waited:
        lay = min(start, column(recorded.start - recorded.waited))
        return " " * lay + WAITED * (start - lay) + HANDLED * max(1, end - start)
    cells = [WAITED] * max(1, end - start)
    attempts = recorded.attempts()
    for began, ended in attempts:
        first = column(began) - start
        for cell in range(max(0, first), max(first + 1, column(ended) - start)):
            if cell < len(cells):
                cells[cell] = CALLED
    return " " * start + "".join(cells if attempts else [CALLED] * len(cells))
