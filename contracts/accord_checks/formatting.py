"""Values of a policy, for people."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final

from google.protobuf import duration_pb2

_NOT_TIMES: Final = frozenset({"max_concurrent", "percentile", "per_second"})


def duration_seconds(duration: duration_pb2.Duration) -> float:
    """A duration in seconds; 0 if it is not set."""
    return duration.seconds + duration.nanos / 1e9


def seconds(value: float | None) -> str:
    """A time: "250 ms", "2 s", "none"."""
    if value is None:
        return "none"
    if value == float("inf"):
        return "no limit"
    return f"{value:.12g} s" if value >= 1 or value <= 0 else f"{value * 1000:.12g} ms"


def shown(value: object, name: str = "") -> str:
    """Any value of a policy: "none", "3", "{ttl 30 s, ...}", names without their leading slash.

    A fraction is a time, unless `name`, the field that holds it, is one of those that are not.
    """
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return value.removeprefix("/") or "none"
    if isinstance(value, (frozenset, set)):
        return "{" + ", ".join(sorted(shown(one) for one in value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(one) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(key)} {shown(value[key])}" for key in sorted(value)) + "}"
    if is_dataclass(value):
        parts = (
            f"{field.name} {shown(getattr(value, field.name), field.name)}"
            for field in fields(value)
        )
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, float):
        bounded = value < float("inf")
        return f"{value:.12g}" if name in _NOT_TIMES and bounded else seconds(value)
    return str(value)
