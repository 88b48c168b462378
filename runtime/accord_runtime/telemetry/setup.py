"""The OpenTelemetry SDK of a service process, as the standard environment variables say.

By itself a service keeps its last spans (`recent`) and serves its metrics (`scrape`); neither needs
a collector. What is read of the environment, beside what the SDK reads on its own (samplers, batch
and export intervals, resource attributes, endpoints, headers, certificates):

    OTEL_SDK_DISABLED            "true": nothing is recorded at all
    OTEL_EXPORTER_OTLP_ENDPOINT  set (or ..._TRACES_ENDPOINT, ..._METRICS_ENDPOINT): spans and
                                 metrics are exported over OTLP/gRPC
    OTEL_TRACES_EXPORTER         "otlp", "none"; default: otlp if there is an endpoint
    OTEL_METRICS_EXPORTER        "otlp", "prometheus", "none"; default: prometheus, and otlp if
                                 there is an endpoint

The standard's default, OTLP to localhost, would have every service complain of a collector that
nobody has started.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from accord_runtime.telemetry.recent_spans import RecentSpans

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

log = logging.getLogger(__name__)

CLOSING: Final = 2.0
"""Seconds that the export of what is left may take when the process ends."""

Environment = Mapping[str, str]

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_KNOWN: Final = frozenset({"otlp", "prometheus", "none"})
_MAX_EVENTS: Final = 64
_MAX_ATTRIBUTES: Final = 32
_MAX_LENGTH: Final = 256


@dataclass(slots=True)
class Telemetry:
    """What a process records; without arguments, nothing."""

    recent: RecentSpans = field(default_factory=RecentSpans)
    """Its last spans."""
    scrape: Callable[[], bytes] | None = None
    """Its metrics in Prometheus' text format; None: they are not served."""
    closing: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        """Export what is left, for `CLOSING` seconds at most: the collector may be away."""
        threads = [threading.Thread(target=close, daemon=True) for close in self.closing]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + CLOSING
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))


def configure(service: str, environment: Environment) -> Telemetry:
    """Install the SDK for this process; once, before anything is recorded."""
    telemetry = Telemetry()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return telemetry
    # Late: a process that records nothing does not load it.
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    named = "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named and not environment.get("OTEL_SERVICE_NAME"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    _trace(telemetry, resource, _wanted("TRACES", environment, ()))
    _measure(telemetry, resource, _wanted("METRICS", environment, ("prometheus",)))
    return telemetry


def _wanted(signal: str, environment: Environment, usual: tuple[str, ...]) -> set[str]:
    """The exporters of a signal."""
    said = environment.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if not said:
        endpoints = (_ENDPOINT, f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        asked = any(environment.get(name) for name in endpoints)
        return {*usual, "otlp"} if asked else set(usual)
    wanted = {name.strip().lower() for name in said.split(",")}
    for unknown in wanted - _KNOWN:
        log.warning("OTEL_%s_EXPORTER: there is no exporter %r here", signal, unknown)
    return wanted & (_KNOWN - {"none"})


def _trace(telemetry: Telemetry, resource: "Resource", wanted: set[str]) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.sampling import AlwaysRecordSampler

    provider = TracerProvider(
        resource=resource,
        shutdown_on_exit=False,
        span_limits=SpanLimits(
            max_events=_MAX_EVENTS,
            max_span_attributes=_MAX_ATTRIBUTES,
            max_event_attributes=_MAX_ATTRIBUTES,
            max_attribute_length=_MAX_LENGTH,
        ),
    )
    # A span that the sampler drops is not exported; it is kept here for a while all the same.
    provider.sampler = AlwaysRecordSampler(provider.sampler)
    provider.add_span_processor(telemetry.recent.processor())
    if "otlp" in wanted:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    telemetry.closing.append(provider.shutdown)
    trace.set_tracer_provider(provider)


def _measure(telemetry: Telemetry, resource: "Resource", wanted: set[str]) -> None:
    if not wanted:
        return
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider

    readers: list[MetricReader] = []
    if "prometheus" in wanted:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        readers.append(PrometheusMetricReader(registry=registry, scope_info_enabled=False))
        telemetry.scrape = lambda: generate_latest(registry)
    if "otlp" in wanted:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    provider = MeterProvider(
        readers,
        resource=resource,
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    telemetry.closing.append(provider.shutdown)
    metrics.set_meter_provider(provider)
