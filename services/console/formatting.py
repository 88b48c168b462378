"""How figures, times and enums are written on pages."""

import time
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.console.html import Child, Html, el
from shop.common.v1.money_pb2 import Money


def seconds(value: float) -> str:
    """`3 ms`, `1.2 s`, `5 min`, `2 h`, `3 d`."""
    if value < 1:
        return f"{value * 1000:.{0 if value >= 0.01 else 1}f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.{1 if value < 10 else 0}f} s"


def duration(value: Duration) -> str:
    """A protobuf duration as `seconds` writes it."""
    return seconds(value.ToNanoseconds() / 1e9)


def when(value: Timestamp) -> Html:
    """A point in time, to the second, in UTC."""
    at = value.ToDatetime(UTC)
    return el("time", at.strftime("%Y-%m-%d %H:%M:%S"), datetime=at.isoformat())


def clock(at: float) -> str:
    """A point in time of today, from POSIX seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


def age(value: Timestamp) -> str:
    """How long ago that was."""
    return seconds(max(0.0, time.time() - value.ToNanoseconds() / 1e9))


def name(member: str, prefix: str) -> str:
    """`half open` of a member of an enum such as BREAKER_POSITION_HALF_OPEN."""
    return member.removeprefix(prefix).lower().replace("_", " ")


def rate(calls: int, window: float) -> str:
    """Calls a second."""
    value = calls / window if window else 0.0
    return f"{value:.{0 if value >= 100 else 1}f}/s"


def money(value: Money) -> str:
    """An amount in minor units, as the contract has it."""
    return f"{value.minor_units / 100:,.2f} {value.currency_code}"


def state(what: str, kind: str) -> Html:
    """A word about how something is; `kind` (good, bad, warn, idle) only colours it."""
    marks = {"good": "●", "bad": "▲", "warn": "◆", "idle": "○"}
    mark: Child = el("span", marks[kind], aria_hidden="true")
    return el("span", mark, " ", what, class_=f"state {kind}")
