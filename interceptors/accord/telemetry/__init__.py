"""Telemetry on the OpenTelemetry API: trace propagation, spans and metrics."""
