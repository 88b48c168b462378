"""Telemetry on the OpenTelemetry API: trace propagation, spans and metrics."""

from accord.telemetry.propagation import HEADERS, trace_headers, trace_id, use_trace

__all__ = ["HEADERS", "trace_headers", "trace_id", "use_trace"]
