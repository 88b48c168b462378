"""A real OpenTelemetry SDK under the library, for one test."""

from typing import Any
from weakref import WeakSet

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from accord.admin import gauges
from accord.telemetry import metrics
from accord.telemetry import propagation as telemetry

Key = frozenset[tuple[str, Any]]


class Spans(SpanProcessor):
    """Keeps every span, from its start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.all: list[Span] = []
        self.ended: list[ReadableSpan] = []
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self)
        monkeypatch.setattr(telemetry, "_tracer", self.provider.get_tracer("accord"))

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.all.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)

    def settled(self) -> bool:
        """Whether there are spans, and all have ended."""
        return bool(self.all) and all(span.end_time is not None for span in self.all)

    def of(self, kind: trace.SpanKind) -> list[Span]:
        return [span for span in self.all if span.kind is kind]

    @property
    def clients(self) -> list[Span]:
        return self.of(trace.SpanKind.CLIENT)

    @property
    def servers(self) -> list[Span]:
        return self.of(trace.SpanKind.SERVER)


class Metrics:
    """Collects what is recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        instruments = metrics.Instruments(self.provider.get_meter("accord"))
        monkeypatch.setattr(metrics, "_instruments", instruments)
        # Not those that an earlier test has left to the garbage collection.
        monkeypatch.setattr(gauges, "_watched", WeakSet())

    def collect(self) -> dict[str, dict[Key, Any]]:
        """Name of the instrument -> attributes -> data point."""
        found: dict[str, dict[Key, Any]] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        points[frozenset((point.attributes or {}).items())] = point
        return found


def key(**labels: str) -> Key:
    """Attributes; `__` stands for a dot."""
    return frozenset((name.replace("__", "."), value) for name, value in labels.items())


def events(span: Any, name: str = "accord.attempt") -> list[dict[str, Any]]:
    """The attributes of a span's events of one name."""
    return [dict(event.attributes) for event in span.events if event.name == name]
