"""What an operator watches of one process: its state and its edges, as far as they change."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from accord.admin.process_state import POSITIONS, Operated, duration, state
from accord.ops.v1 import mesh_pb2 as pb
from accord.telemetry.edges import WINDOW, Figures, Key

INTERVAL: Final = 1.0
"""Seconds between two looks when the caller does not say."""
SHORTEST: Final = 0.5
LONGEST: Final = 60.0

_FAILURES: Final = (
    "UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
)  # fmt: skip

Events = Callable[[], Iterable[pb.EventEdge]]
"""What a process consumes and publishes, as it is now; read from memory, once a look."""


class Changes:
    """What one watcher has not been told yet."""

    def __init__(self, mesh: Operated, events: Events) -> None:
        self._mesh = mesh
        self._events = events
        self._state = pb.GetStateResponse()
        # By what names an edge, which is of different types for calls and events.
        self._told: dict[tuple[object, ...], pb.Edge | pb.EventEdge] = {}

    def next(self) -> pb.WatchStateResponse | None:
        """All of it the first time, and what has changed since from then on; None: nothing has."""
        now = state(self._mesh)
        at = Timestamp()
        at.FromNanoseconds(time.time_ns())
        window, edges = self._mesh.control.edges.figures()
        found = pb.WatchStateResponse(at=at, window=duration(window), state=now)
        for name in now.DESCRIPTOR.fields_by_name:
            if getattr(now, name) == getattr(self._state, name):
                found.state.ClearField(name)  # type: ignore[arg-type]  # the stubs want it literal
            else:
                found.changed.append(name)
        self._state = now
        breakers = {
            (route.target, route.method): POSITIONS[route.breaker.state]
            for route in self._mesh.snapshot().routes
            if route.breaker is not None
        }
        for key, figures in edges.items():
            edge = _edge(key, figures)
            if not key.served:
                edge.breaker = breakers.get((key.peer, key.method), edge.breaker)
            if self._news(key, edge):
                found.edges.append(edge)
        for event in self._events():
            if self._news((event.direction, event.source), event):
                found.event_edges.append(event)
        news = found.changed or found.edges or found.event_edges
        # At first the same figures are of more and more seconds.
        return found if news or window < WINDOW - 1 else None

    # Named as in `__init__`.
    def _news(self, key: tuple[object, ...], edge: pb.Edge | pb.EventEdge) -> bool:
        new = self._told.get(key) != edge
        self._told[key] = edge
        return new


def _edge(key: Key, figures: Figures) -> pb.Edge:
    errors = {code: count for code, count in figures.codes.items() if code != "OK"}
    found = pb.Edge(
        direction=pb.DIRECTION_IN if key.served else pb.DIRECTION_OUT,
        peer=key.peer,
        method=key.method[1:],
        calls=figures.codes.total(),
        errors=errors,
        failures=sum(errors.get(code, 0) for code in _FAILURES),
        in_flight=figures.in_flight,
    )
    if found.calls:
        found.p50.CopyFrom(duration(figures.p50))
        found.p99.CopyFrom(duration(figures.p99))
    return found
