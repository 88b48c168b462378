"""A tracer whose spans are kept and nothing else, for a process that exports none.

It is the OpenTelemetry API without the SDK, whose span costs some four times as much (and more
where caches are cold), of which a process that keeps its spans itself needs nothing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import getrandbits
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util import types

from accord_runtime.telemetry.span_store import MAX_ATTRIBUTES, MAX_EVENTS, EndedSpan

_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)

Attributes = dict[str, object]


class KeptSpan(trace.Span):
    """A span that is handed over when it ends. Beyond the store's bounds nothing is added."""

    def __init__(
        self,
        name: str,
        context: trace.SpanContext,
        parent_id: int,
        kind: trace.SpanKind,
        attributes: types.Attributes,
        start: int | None,
        keep: Callable[[EndedSpan], None],
    ) -> None:
        self.name = name
        self._context = context
        self.trace_id, self.span_id, self.parent_id = context.trace_id, context.span_id, parent_id
        self.kind = kind.name
        self.start, self.end_time = start or time.time_ns(), 0
        self.error = False
        self.attributes: Attributes = dict(attributes or {})
        self.events: list[tuple[str, int, Attributes]] = []
        self.links: list[tuple[int, int]] = []
        self._keep = keep

    def end(self, end_time: int | None = None) -> None:
        """Hand it over, the first time."""
        if not self.end_time:
            self.end_time = end_time or time.time_ns()
            self._keep(self)

    def get_span_context(self) -> trace.SpanContext:
        """Its ids."""
        return self._context

    def set_attributes(self, attributes: types.Attributes) -> None:
        """See `set_attribute`."""
        for name, value in (attributes or {}).items():
            self.set_attribute(name, value)

    def set_attribute(self, key: str, value: types.AttributeValue) -> None:
        """Say something of it."""
        if len(self.attributes) < MAX_ATTRIBUTES or key in self.attributes:
            self.attributes[key] = value

    def add_event(
        self, name: str, attributes: types.Attributes = None, timestamp: int | None = None
    ) -> None:
        """Something has happened meanwhile."""
        if len(self.events) < MAX_EVENTS:
            self.events.append((name, timestamp or time.time_ns(), dict(attributes or {})))

    def add_link(self, context: trace.SpanContext, attributes: types.Attributes = None) -> None:
        """It has to do with another span."""
        if len(self.links) < MAX_EVENTS:
            self.links.append((context.trace_id, context.span_id))

    def update_name(self, name: str) -> None:
        """Call it something else."""
        self.name = name

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return not self.end_time

    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None:
        """Say whether it has failed."""
        code = status.status_code if isinstance(status, trace.Status) else status
        self.error = code is trace.StatusCode.ERROR

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Note its type; what it says may be meant for nobody."""
        self.add_event("exception", {"exception.type": type(exception).__name__}, timestamp)


class KeptTracer(trace.Tracer):
    """Makes spans that are handed to `keep`."""

    def __init__(self, keep: Callable[[EndedSpan], None]) -> None:
        self._keep = keep

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """A span that begins now, below the one in `context`."""
        above = trace.get_current_span(context).get_span_context()
        known = above.is_valid
        ids = trace.SpanContext(
            above.trace_id if known else getrandbits(128) or 1,
            getrandbits(64) or 1,
            is_remote=False,
            trace_flags=above.trace_flags if known else _SAMPLED,
            trace_state=above.trace_state,
        )
        parent = above.span_id if known else 0
        span = KeptSpan(name, ids, parent, kind, attributes, start_time, self._keep)
        for link in links or ():
            span.add_link(link.context)
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # of another kind of context manager
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        """As `start_span`, and current in the block."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span


class KeptTracerProvider(trace.TracerProvider):
    """Gives everybody the same tracer."""

    def __init__(self, keep: Callable[[EndedSpan], None]) -> None:
        self._tracer = KeptTracer(keep)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes | None = None,
    ) -> trace.Tracer:
        """The tracer."""
        return self._tracer
