"""`shopctl order trace`: who called whom, what came of it, when, how long, and where it waited."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from rich.text import Text

from accord.ops.v1 import trace_pb2 as pb
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from shopctl.client import Shop, with_shop
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import format_time
from shopctl.supervisor.programs import SERVICES
from shopctl.terminal import as_text, harmless, wants_colour, width

STATUS: Final = "rpc.response.status_code"
ATTEMPT: Final = "accord.attempt"
REFUSED: Final = "accord.refused"
LAY: Final = "accord.waited"

HANDLED: Final = "█"
CALLED: Final = "▒"
WAITED: Final = "·"

_MAX_CALL: Final = 60
_MIN_BAR: Final = 20
_MAX_DEPTH: Final = 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """A span and the service that has it."""

    service: str
    span: pb.Span

    @property
    def start(self) -> int:
        """Nanoseconds since 1970."""
        return self.span.start.ToNanoseconds()

    @property
    def end(self) -> int:
        """Nanoseconds since 1970."""
        return self.span.end.ToNanoseconds()

    @property
    def waited(self) -> int:
        """Nanoseconds for which what it is about lay before it began."""
        return int(_number(self.span.attributes, LAY) * 1e9)


@dataclass(frozen=True, slots=True)
class Line:
    """A span at its depth below the one that caused it."""

    depth: int
    recorded: Recorded


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


def tree(spans: Iterable[Recorded]) -> list[Line]:
    """The spans in the order of a call tree; a span whose cause is not there begins a tree."""
    ordered = sorted(
        spans, key=lambda each: (each.start, each.span.kind == pb.SpanKind.SPAN_KIND_SERVER)
    )
    known = {each.span.span_id for each in ordered}
    children: dict[str, list[Recorded]] = {}
    for each in ordered:
        parent = each.span.parent_span_id
        children.setdefault(parent if parent in known else "", []).append(each)

    def walk(parent: str, depth: int) -> Iterator[Line]:
        for each in children.pop(parent, ()):
            yield Line(depth, each)
            yield from walk(each.span.span_id, min(depth + 1, _MAX_DEPTH))

    lines = list(walk("", 0))
    while children:  # spans that name each other as their cause
        lines += walk(next(iter(children)), 0)
    return lines


def synchronous(lines: Sequence[Line]) -> list[Line]:
    """The part of a tree that its first call has waited for: what began before that had ended."""
    if not lines:
        return []
    end = lines[0].recorded.end
    return [line for line in lines if line.recorded.start <= end]


def summary(lines: Sequence[Line]) -> str:
    """How long it took in all, and where it lay: waits at one time count each."""
    first = min(line.recorded.start for line in lines)
    length = max(line.recorded.end for line in lines) - first
    lay = dict.fromkeys(("to be published", "on the broker", "for work to begin"), 0)
    for line in lines:
        what = line.recorded.span.name.partition(" ")[0]
        where = {"publish": "to be published", "receive": "on the broker"}
        lay[where.get(what, "for work to begin")] += line.recorded.waited
    waits = ", ".join(f"{milliseconds(waited)} {where}" for where, waited in lay.items())
    return f"end to end {milliseconds(length)}; waited {waits}"


def timeline(lines: Sequence[Line], *, colour: bool, width: int) -> str:
    """The spans as text: a row per span, and below it what it had to go through."""
    first = min(line.recorded.start for line in lines)
    length = max(1, max(line.recorded.end for line in lines) - first)
    calls = [("  " * line.depth + _what(line.recorded))[:_MAX_CALL] for line in lines]
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
        for note in _notes(span):
            out.append(f"{'  ' * line.depth}  {note}\n", "not bold dim")
    return as_text(out, colour=colour, width=width, soft_wrap=True)


def milliseconds(nanoseconds: int) -> str:
    """`0.4 ms`, `12.3 ms`, `1,234.5 ms`."""
    return f"{nanoseconds / 1e6:,.1f} ms"


def _what(recorded: Recorded) -> str:
    method = harmless(recorded.span.name.rpartition("/")[2])
    if recorded.span.kind == pb.SpanKind.SPAN_KIND_CLIENT and "/" in recorded.span.name:
        return f"→ {method}"
    return f"{recorded.service} {method}"


def _bar(recorded: Recorded, column: Callable[[int], int]) -> str:
    """Solid where a call was handled, light where it was waited for, dots between attempts.

    `column` is that of a time in nanoseconds.
    """
    start, end = column(recorded.start), column(recorded.end)
    if recorded.span.kind != pb.SpanKind.SPAN_KIND_CLIENT or recorded.waited:
        lay = min(start, column(recorded.start - recorded.waited))
        return " " * lay + WAITED * (start - lay) + HANDLED * max(1, end - start)
    cells = [WAITED] * max(1, end - start)
    attempts = [event for event in recorded.span.events if event.name == ATTEMPT]
    for event in attempts:
        ended = event.at.ToNanoseconds()
        began = column(ended - int(_seconds(event) * 1e9)) - start
        for cell in range(max(0, began), max(began + 1, column(ended) - start)):
            if cell < len(cells):
                cells[cell] = CALLED
    return " " * start + "".join(cells if attempts else [CALLED] * len(cells))


def _notes(span: pb.Span) -> Iterator[str]:
    """What a call had to go through; nothing for one that was answered at once."""
    if "accord.cache.hit" in span.attributes:
        yield "from the cache"
    if "accord.fallback" in span.attributes:
        yield "answered by the fallback"
    if (attempt := span.attributes.get("accord.work.attempt", "1")) != "1":
        yield harmless(f"attempt {attempt}")
    if "error.type" in span.attributes and STATUS not in span.attributes:
        yield harmless(f"failed: {span.attributes['error.type']}")
    events = [event for event in span.events if event.name in (ATTEMPT, REFUSED)]
    if len(events) == 1 and events[0].attributes.get(STATUS) == "OK":
        return
    for number, event in enumerate(events, 1):
        said = event.attributes
        what = "refused" if event.name == REFUSED else f"attempt {number}"
        parts = [what, said.get(STATUS, ""), said.get("accord.reason", "")]
        if event.name == ATTEMPT:
            parts.append(milliseconds(int(_seconds(event) * 1e9)))
        if said.get("accord.attempt.hedge"):
            parts.append("hedge")
        if said.get("accord.attempt.lost"):
            parts.append("lost")
        if "accord.retry.delay" in said:
            delay = milliseconds(int(float(said["accord.retry.delay"]) * 1e9))
            parts.append(f"again after {delay}")
        if "accord.retry.stopped" in said:
            parts.append(f"no further attempt: {said['accord.retry.stopped']}")
        yield harmless(" ".join(part for part in parts if part))


def _seconds(event: pb.SpanEvent) -> float:
    return _number(event.attributes, "accord.attempt.duration")


def _number(attributes: Mapping[str, str], name: str) -> float:
    """A number that is no less than 0; 0 if there is none."""
    try:
        found = float(attributes.get(name, "0"))
    except ValueError:
        return 0.0
    return found if 0 <= found < 1e9 else 0.0
