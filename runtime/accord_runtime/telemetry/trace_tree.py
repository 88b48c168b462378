"""The spans of a trace as a tree: who called whom, how long it took, and where it waited."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from accord.ops.v1 import trace_pb2 as pb

STATUS: Final = "rpc.response.status_code"
ATTEMPT: Final = "accord.attempt"
REFUSED: Final = "accord.refused"
LAY: Final = "accord.waited"

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

    @property
    def what(self) -> str:
        """`orders CreateOrder`, or `→ ReserveStock` of a call that it makes."""
        method = self.span.name.rpartition("/")[2]
        if self.span.kind == pb.SpanKind.SPAN_KIND_CLIENT and "/" in self.span.name:
            return f"→ {method}"
        return f"{self.service} {method}"

    @property
    def waited_for(self) -> str:
        """What it is that was waited for, as in `summary`."""
        where = {"publish": "to be published", "receive": "on the broker"}
        return where.get(self.span.name.partition(" ")[0], "for work to begin")

    def attempts(self) -> list[tuple[int, int]]:
        """When attempts of a call began and ended, in nanoseconds since 1970."""
        ended = [event for event in self.span.events if event.name == ATTEMPT]
        return [
            (event.at.ToNanoseconds() - int(_seconds(event) * 1e9), event.at.ToNanoseconds())
            for event in ended
        ]

    def notes(self) -> Iterator[str]:
        """What a call had to go through; nothing for one that was answered at once."""
        span = self.span
        if "accord.cache.hit" in span.attributes:
            yield "from the cache"
        if "accord.fallback" in span.attributes:
            yield "answered by the fallback"
        if (attempt := span.attributes.get("accord.work.attempt", "1")) != "1":
            yield f"attempt {attempt}"
        if "error.type" in span.attributes and STATUS not in span.attributes:
            yield f"failed: {span.attributes['error.type']}"
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
            yield " ".join(part for part in parts if part)


class Line(NamedTuple):
    """A span at its depth below the one that caused it."""

    depth: int
    recorded: Recorded


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
        lay[line.recorded.waited_for] += line.recorded.waited
    waits = ", ".join(f"{milliseconds(waited)} {where}" for where, waited in lay.items())
    return f"end to end {milliseconds(length)}; waited {waits}"


def milliseconds(nanoseconds: int) -> str:
    """`0.4 ms`, `12.3 ms`, `1,234.5 ms`."""
    return f"{nanoseconds / 1e6:,.1f} ms"


def _seconds(event: pb.SpanEvent) -> float:
    return _number(event.attributes, "accord.attempt.duration")


def _number(attributes: Mapping[str, str], name: str) -> float:
    """A number that is no less than 0; 0 if there is none."""
    try:
        found = float(attributes.get(name, "0"))
    except ValueError:
        return 0.0
    return found if 0 <= found < 1e9 else 0.0
