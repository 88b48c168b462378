"""The OpenTelemetry SDK of a service process, as the standard environment variables say.

By itself a service keeps its spans (`spans`) and serves its metrics (`scrape`); neither needs a
collector. What is read of the environment, beside what the SDK reads on its own (samplers, batch
and export intervals, resource attributes, endpoints, headers, certificates):

    OTEL_SDK_DISABLED            "true": nothing is recorded at all
    OTEL_EXPORTER_OTLP_ENDPOINT  set (or ..._TRACES_ENDPOINT, ..._METRICS_ENDPOINT,
                                 ..._LOGS_ENDPOINT): spans, metrics and log are exported by OTLP
    OTEL_EXPORTER_OTLP_PROTOCOL  "grpc", the default, or "http/protobuf" (or ..._TRACES_PROTOCOL,
                                 ..._METRICS_PROTOCOL, ..._LOGS_PROTOCOL)
    OTEL_TRACES_EXPORTER, OTEL_LOGS_EXPORTER
                                 "otlp", "none"; default: otlp if there is an endpoint
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
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from accord_runtime.telemetry.kept_tracer import KeptTracerProvider
from accord_runtime.telemetry.logs import Exported
from accord_runtime.telemetry.span_store import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_TEXT,
    SpanStore,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

log = logging.getLogger(__name__)

CLOSING: Final = 1.5
"""Seconds that the export of what is left may take when the process ends."""

Environment = Mapping[str, str]

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_KNOWN: Final = frozenset({"otlp", "prometheus", "none"})


@dataclass(slots=True)
class Telemetry:
    """What a process records; without arguments, nothing."""

    spans: SpanStore = field(default_factory=SpanStore)
    """Its spans, on their way to its database."""
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


def configure(
    service: str, version: str, environment: Environment, *, keeps_spans: bool = True
) -> Telemetry:
    """Install the SDK for this process; once, before anything is recorded.

    `keeps_spans`: it has a database to write them to; else they are exported, or dropped.
    """
    telemetry = Telemetry() if keeps_spans else Telemetry(SpanStore(waiting=0))
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return telemetry
    # Late: a process that records nothing does not load it.
    from opentelemetry.sdk import resources

    said = resources.OTELResourceDetector().detect()  # by the environment
    attributes = {resources.SERVICE_NAME: service, resources.SERVICE_VERSION: version}
    resource = resources.Resource.create(attributes).merge(said)
    _trace(telemetry, resource, environment)
    _measure(telemetry, resource, environment)
    _log(telemetry, resource, environment)
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


def _otlp(signal: str, name: str, environment: Environment) -> Any:
    """An exporter, by its name in the package of the protocol; None: the package is not there."""
    variables = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next(filter(None, map(environment.get, variables)), "grpc")
    package = f"opentelemetry.exporter.otlp.proto.{protocol.removesuffix('/protobuf')}"
    module, _, exporter = name.rpartition(".")
    try:
        return getattr(import_module(f"{package}.{module}"), exporter)()
    except ImportError:
        log.warning("%s is not exported by %s: there is no %s", signal, protocol, package)
        return None


def _trace(telemetry: Telemetry, resource: "Resource", environment: Environment) -> None:
    from opentelemetry import trace

    exporter = None
    if "otlp" in _wanted("TRACES", environment, ()):
        exporter = _otlp("TRACES", "trace_exporter.OTLPSpanExporter", environment)
    if exporter is None:
        trace.set_tracer_provider(KeptTracerProvider(telemetry.spans.keep))
        return
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import AlwaysRecordSampler

    provider = TracerProvider(
        resource=resource,
        shutdown_on_exit=False,
        span_limits=SpanLimits(
            max_events=MAX_EVENTS,
            max_span_attributes=MAX_ATTRIBUTES,
            max_event_attributes=MAX_ATTRIBUTES,
            max_attribute_length=MAX_TEXT,
        ),
    )
    # A span that the sampler drops is not exported; it is kept here for a while all the same.
    provider.sampler = AlwaysRecordSampler(provider.sampler)
    provider.add_span_processor(telemetry.spans.processor())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    telemetry.closing.append(provider.shutdown)
    trace.set_tracer_provider(provider)


def _measure(telemetry: Telemetry, resource: "Resource", environment: Environment) -> None:
    wanted = _wanted("METRICS", environment, ("prometheus",))
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
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        if exporter := _otlp("METRICS", "metric_exporter.OTLPMetricExporter", environment):
            readers.append(PeriodicExportingMetricReader(exporter))
    provider = MeterProvider(
        readers,
        resource=resource,
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    telemetry.closing.append(provider.shutdown)
    metrics.set_meter_provider(provider)


def _log(telemetry: Telemetry, resource: "Resource", environment: Environment) -> None:
    if "otlp" not in _wanted("LOGS", environment, ()):
        return
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    if exporter := _otlp("LOGS", "_log_exporter.OTLPLogExporter", environment):
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        telemetry.closing.append(provider.shutdown)
        logging.getLogger().addHandler(Exported(provider))
