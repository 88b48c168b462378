"""The last spans of a process, kept in memory for its operator.

A trace can be looked at without a collector, as long as it is among the last `MAX_SPANS` spans of
each service it went through and none of them has been restarted.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

MAX_SPANS: Final = 2000

Attributes = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class KeptSpan:
    """A span that has ended. Times are nanoseconds since 1970."""

    number: int
    """In the order in which spans have ended, from 1."""
    trace_id: int
    span_id: int
    parent_id: int
    """0: it has none."""
    name: str
    kind: str
    """`CLIENT`, `SERVER`, `PRODUCER`, `CONSUMER` or `INTERNAL`."""
    start: int
    end: int
    error: bool
    attributes: Attributes
    events: tuple[tuple[str, int, Attributes], ...]
    """Name, time and attributes."""


class RecentSpans:
    """A bounded number of spans, the oldest of which make room. Spans may end in any thread."""

    def __init__(self, size: int = MAX_SPANS) -> None:
        self._spans: deque[KeptSpan] = deque(maxlen=size)
        self._ended = 0

    def keep(self, span: "ReadableSpan") -> None:
        """Keep a span that has ended: what is needed of it, which is a fraction of its size."""
        context = span.context
        if context is None:
            return
        self._ended += 1
        self._spans.append(
            KeptSpan(
                self._ended,
                context.trace_id,
                context.span_id,
                span.parent.span_id if span.parent is not None else 0,
                span.name,
                span.kind.name,
                span.start_time or 0,
                span.end_time or 0,
                not span.status.is_ok,
                dict(span.attributes or {}),
                tuple(
                    (event.name, event.timestamp, dict(event.attributes or {}))
                    for event in span.events
                ),
            )
        )

    def of(self, trace_id: int, *, after: int = 0, most: int = MAX_SPANS) -> list[KeptSpan]:
        """Up to `most` spans of a trace that have ended, in that order, behind number `after`."""
        spans = (each for each in list(self._spans) if each.trace_id == trace_id)
        return list(islice((span for span in spans if span.number > after), most))

    def processor(self) -> "SpanProcessor":
        """What a TracerProvider tells of its spans."""
        from opentelemetry.sdk.trace import SpanProcessor

        recent = self

        class Keeper(SpanProcessor):
            def on_end(self, span: "ReadableSpan") -> None:
                recent.keep(span)

        return Keeper()
