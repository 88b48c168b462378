"""Calls and events between services, put together from what both sides have seen."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from accord.ops.v1 import mesh_pb2 as pb
from services.console.contracts import named, server_of
from services.console.watch import Seen

OUT: Final = pb.Direction.DIRECTION_OUT
OPEN: Final = pb.BreakerPosition.BREAKER_POSITION_OPEN


@dataclass(slots=True)
class Calls:
    """Calls of one method by one caller, of the last seconds."""

    caller: str
    callee: str
    method: str
    calls: int = 0
    failures: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    window: float = 0.0
    """Seconds."""
    p50: float | None = None
    p99: float | None = None
    """Seconds, as the caller has seen it; as the other side has, if the caller is not watched."""
    served_p99: float | None = None
    """Seconds, as it was handled."""
    breaker: int = 0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.window if self.window else 0.0

    @property
    def kind(self) -> str:
        """open, bad, good or idle."""
        if self.breaker == OPEN:
            return "open"
        return "bad" if self.failures else "good" if self.calls else "idle"


def calls_of(seen: Mapping[str, Seen]) -> list[Calls]:
    """All calls between parts of the shop; each by its caller, whatever has seen it."""
    found: dict[tuple[str, str, str], Calls] = {}
    for name, each in seen.items():
        for edge in each.edges.values():
            if not server_of(edge.method):
                continue  # of operators
            out = edge.direction == OUT
            caller, callee = (name, edge.peer) if out else (named(edge.peer), name)
            key = caller, callee, edge.method
            calls = found.setdefault(key, Calls(*key))
            if not out:
                calls.served_p99 = _seconds(edge, "p99")
            if out or not calls.window:
                calls.calls, calls.failures = edge.calls, edge.failures
                calls.errors, calls.window = Counter(edge.errors), each.window
                calls.p50, calls.p99 = _seconds(edge, "p50"), _seconds(edge, "p99")
                calls.breaker = edge.breaker
    return [found[key] for key in sorted(found)]


def together(calls: list[Calls]) -> dict[tuple[str, str], Calls]:
    """All methods of two as one, by caller and callee: the worst of them, and the sum."""
    found: dict[tuple[str, str], Calls] = {}
    for each in calls:
        both = found.setdefault((each.caller, each.callee), Calls(each.caller, each.callee, ""))
        both.calls += each.calls
        both.failures += each.failures
        both.errors += each.errors
        both.window = max(both.window, each.window)
        both.p99 = max((p for p in (both.p99, each.p99) if p is not None), default=None)
        both.breaker = OPEN if OPEN in (both.breaker, each.breaker) else each.breaker
    return found


def events_of(seen: Mapping[str, Seen]) -> Iterator[tuple[str, pb.EventEdge]]:
    """Events that services take, by the service that does; with their sources."""
    for name, each in seen.items():
        for edge in each.events.values():
            if edge.direction != OUT:
                yield name, edge


def _seconds(edge: pb.Edge, name: str) -> float | None:
    return getattr(edge, name).ToNanoseconds() / 1e9 if edge.HasField(name) else None  # type: ignore[arg-type]
