"""OpenTelemetry's SDK, as an application would install it, exporting to nowhere.

A process has one provider, and the calling process of a benchmark makes calls with and without: so
here it can be changed, which OpenTelemetry itself does not allow.
"""

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_state
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from accord.telemetry import metrics as accord_metrics
from accord.telemetry import propagation as telemetry

OFF: Final = "off"
SAMPLED_OUT: Final = "sampled out"
ON: Final = "on"
TRACES: Final = "traces"
METRICS: Final = "metrics"


class _Spans(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class _Metrics(MetricExporter):
    """Takes metrics and forgets them."""

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        return


def tracer_provider(*, sampled: bool) -> TracerProvider:
    """Spans in batches."""
    provider = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
    provider.add_span_processor(BatchSpanProcessor(_Spans()))
    return provider


def meter_provider() -> MeterProvider:
    """Metrics, collected every ten seconds."""
    return MeterProvider([PeriodicExportingMetricReader(_Metrics(), 10_000)])


def install(state: str) -> None:
    """Install what a process of this state has, once and for all."""
    if state not in (OFF, METRICS):
        trace.set_tracer_provider(tracer_provider(sampled=state != SAMPLED_OUT))
    if state in (ON, METRICS):
        metrics.set_meter_provider(meter_provider())


class Switch:
    """Changes what the library finds installed. The providers are made when first needed."""

    def __init__(self) -> None:
        self._tracers: dict[str, TracerProvider] = {}
        self._found: dict[str, tuple[Any, Any, Any, Any]] = {
            OFF: (None, telemetry._tracer, None, None)
        }

    def tracers(self, state: str) -> TracerProvider | None:
        """The provider of a state; None if it has none."""
        if state in (OFF, METRICS):
            return None
        if state not in self._tracers:
            self._tracers[state] = tracer_provider(sampled=state != SAMPLED_OUT)
        return self._tracers[state]

    def apis(self, state: str) -> tuple[trace.Tracer, metrics.Meter]:
        """What code that calls the SDK by hand uses in a state that records both."""
        tracers = self.tracers(state)
        assert tracers is not None
        meters = MeterProvider([InMemoryMetricReader()])
        return tracers.get_tracer("by hand"), meters.get_meter("by hand")

    def to(self, state: str) -> None:
        """From now on the process is in this state."""
        if state not in self._found:
            tracers = self.tracers(state)
            # Collected by nobody: while it is switched off there is nothing to read.
            meters = MeterProvider([InMemoryMetricReader()]) if state in (ON, METRICS) else None
            instruments = meters and accord_metrics.Instruments(meters.get_meter("accord"))
            tracer = tracers.get_tracer("accord") if tracers else self._found[OFF][1]
            self._found[state] = (tracers, tracer, meters, instruments)
        (
            trace._TRACER_PROVIDER,
            telemetry._tracer,
            metrics_state._METER_PROVIDER,
            accord_metrics._instruments,
        ) = self._found[state]

    def flush(self, state: str) -> None:
        """Export what a state has recorded: it belongs to the calls that recorded it."""
        if state in self._tracers:
            self._tracers[state].force_flush()
