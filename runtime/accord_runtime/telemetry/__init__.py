"""What a service records of itself: its last spans, its metrics, and both for a collector."""

from accord_runtime.telemetry.setup import Telemetry, configure

__all__ = ["Telemetry", "configure"]
