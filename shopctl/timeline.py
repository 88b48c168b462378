"""A trace as a timeline: who called whom, when, for how long, and what was tried again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final

from rich.console import Console
from rich.text import Text

from accord.ops.v1.trace_pb2 import Span, SpanEvent, SpanKind

STATUS: Final = "rpc.response.status_code"
ATTEMPT: Final = "accord.attempt"
REFUSED: Final = "accord.refused"

HANDLED: Final = "█"
CALLED: Final = "▒"
WAITED: Final = "·"

_MAX_CALL: Final = 50
_MIN_BAR: Final = 20
_MAX_DEPTH: Final = 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """A span and the service that has it."""

    service: str
    span: Span

    @property
    def start(self) -> int:
        """Nanoseconds since 1970."""
        return self.span.start.ToNanoseconds()

    @property
    def end(self) -> int:
        """Nanoseconds since 1970."""
        return self.span.end.ToNanoseconds()


@dataclass(frozen=True, slots=True)
class Line:
    """A span at its depth below the one that caused it."""

    depth: int
    recorded: Recorded


def tree(spans: Iterable[Recorded]) -> list[Line]:
    """The spans in the order of a call tree; a span whose cause is not there begins a tree."""
    ordered = sorted(
        spans, key=lambda each: (each.start, each.span.kind == SpanKind.SPAN_KIND_SERVER)
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


def render(lines: Sequence[Line], *, colour: bool, width: int) -> str:
    """The timeline as text: a row per span, and below it what it had to go through."""
    first = min(line.recorded.start for line in lines)
    length = max(1, max(line.recorded.end for line in lines) - first)
    calls = [("  " * line.depth + _what(line.recorded))[:_MAX_CALL] for line in lines]
    times = [milliseconds(line.recorded.end - line.recorded.start) for line in lines]
    statuses = [_harmless(line.recorded.span.attributes.get(STATUS, "")) for line in lines]
    call_width, time_width = max(map(len, calls)), max(map(len, (*times, "TIME")))
    columns = width - call_width - time_width - max(map(len, (*statuses, "STATUS"))) - 6
    scale = Scale(first, length, max(_MIN_BAR, columns))
    heading = f"0 to {milliseconds(length)}"
    out = Text(
        f"{'CALL':<{call_width}}  {heading:<{scale.columns}}  {'TIME':>{time_width}}  STATUS\n",
        style="bold",
    )
    for line, call, time, status in zip(lines, calls, times, statuses, strict=True):
        span = line.recorded.span
        style = "red" if span.error else ""
        out.append(f"{call:<{call_width}}  ", "not bold")
        bar = _bar(line.recorded, scale)[: scale.columns]
        out.append(f"{bar:<{scale.columns}}", f"not bold {style or 'cyan'}")
        out.append(f"  {time:>{time_width}}  ", "not bold")
        out.append(f"{status}\n", f"not bold {style}")
        for note in _notes(span):
            out.append(f"{'  ' * line.depth}  {note}\n", "not bold dim")
    text = StringIO()
    console = Console(
        file=text, force_terminal=colour, no_color=not colour, width=width, highlight=False
    )
    console.print(out, soft_wrap=True, end="")
    return "\n".join(row.rstrip() for row in text.getvalue().splitlines())


@dataclass(frozen=True, slots=True)
class Scale:
    """From time to columns."""

    first: int
    length: int
    columns: int

    def column(self, at: int) -> int:
        """The column of a time in nanoseconds."""
        at_most = self.columns - 1
        return min(at_most, max(0, (at - self.first) * self.columns // self.length))


def milliseconds(nanoseconds: int) -> str:
    """`0.4 ms`, `12.3 ms`, `1,234.5 ms`."""
    return f"{nanoseconds / 1e6:,.1f} ms"


def _what(recorded: Recorded) -> str:
    method = _harmless(recorded.span.name.rpartition("/")[2])
    if recorded.span.kind == SpanKind.SPAN_KIND_CLIENT:
        return f"→ {method}"
    return f"{recorded.service} {method}"


def _bar(recorded: Recorded, scale: Scale) -> str:
    """Solid where a call was handled, light where it was waited for, dots between attempts."""
    start, end = scale.column(recorded.start), scale.column(recorded.end)
    if recorded.span.kind != SpanKind.SPAN_KIND_CLIENT:
        return " " * start + HANDLED * max(1, end - start)
    cells = [WAITED] * max(1, end - start)
    attempts = [event for event in recorded.span.events if event.name == ATTEMPT]
    for event in attempts:
        ended = event.at.ToNanoseconds()
        began = scale.column(ended - int(_seconds(event) * 1e9)) - start
        for column in range(max(0, began), max(began + 1, scale.column(ended) - start)):
            if column < len(cells):
                cells[column] = CALLED
    return " " * start + "".join(cells if attempts else [CALLED] * len(cells))


def _notes(span: Span) -> Iterator[str]:
    """What a call had to go through; nothing for one that was answered at once."""
    if "accord.cache.hit" in span.attributes:
        yield "from the cache"
    if "accord.fallback" in span.attributes:
        yield "answered by the fallback"
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
        yield _harmless(" ".join(part for part in parts if part))


def _seconds(event: SpanEvent) -> float:
    try:
        return float(event.attributes.get("accord.attempt.duration", "0"))
    except ValueError:
        return 0.0


def _harmless(text: str) -> str:
    """A span's name may come from elsewhere; a terminal must not obey it."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
