"""The calls between a process and its neighbours, counted while somebody watches, and only then.

An edge is a direction, a peer and a method. Of the last `WINDOW` seconds it has how calls ended and
how long they took, in buckets whose bounds grow by 9 % (as those of HdrHistogram grow): a slice a
second, of which the oldest falls out. While nobody watches, a call costs one look at `watched`.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, NamedTuple

from accord.contract.names import GRPC
from accord.telemetry.metrics import OTHER, status

WINDOW: Final = 10
"""Seconds that figures are of."""

MAX_EDGES: Final = 1000
"""Edges that are told apart."""

_STEPS: Final = 8
"""Buckets for each doubling of a duration."""

_SHORTEST: Final = 1e-6
"""Seconds; what is shorter counts as long as that."""


class Key(NamedTuple):
    """Which edge it is."""

    served: bool
    """Whether the process serves the calls; else it makes them."""
    peer: str
    """Identity of the caller, or name of the target."""
    method: str
    """As it travels: "/pkg.Service/Method"."""


_OTHERS: Final = (Key(False, "", f"/{OTHER}"), Key(True, "", f"/{OTHER}"))


@dataclass(slots=True)
class _Slice:
    """One second."""

    second: int
    codes: Counter[str] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class _Edge:
    in_flight: int = 0
    slices: deque[_Slice] = field(default_factory=deque)

    def forget(self, before: int) -> None:
        while self.slices and self.slices[0].second < before:
            self.slices.popleft()


@dataclass(frozen=True, slots=True)
class Figures:
    """An edge at one moment."""

    codes: Counter[str]
    """How calls have ended, by the name of the status."""
    p50: float
    """Seconds; 0 if none has ended."""
    p99: float
    in_flight: int


class Watched:
    """A call that has begun while somebody watches."""

    __slots__ = ("_edge", "_edges", "_started")

    def __init__(self, edges: "Edges", edge: _Edge, started: float) -> None:
        self._edges, self._edge, self._started = edges, edge, started

    def end(self, code: str) -> None:
        """It has ended with the status of this name; to be told once."""
        self._edges._end(self._edge, self._started, code)


class Edges:
    """The edges of one process. Safe under threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.watched = 0
        """How many watch: 0, and nothing is counted."""
        self._clock = clock
        self._since = 0.0
        self._edges: dict[Key, _Edge] = {}
        self._lock = Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count in the block. What was counted is dropped when nobody watches any more."""
        with self._lock:
            if not self.watched:
                self._since = self._clock()
            self.watched += 1
        try:
            yield
        finally:
            with self._lock:
                self.watched -= 1
                if not self.watched:
                    self._edges = {}

    def begin(self, key: Key, started: float) -> Watched | None:
        """A call has begun; None: it is one of gRPC's own, which say nothing."""
        if key.method.startswith(GRPC):
            return None
        with self._lock:
            edge = self._edges.get(key)
            if edge is None:
                known = key if len(self._edges) < MAX_EDGES else _OTHERS[key.served]
                edge = self._edges.setdefault(known, _Edge())
            edge.in_flight += 1
        return Watched(self, edge, started)

    def _end(self, edge: _Edge, started: float, code: str) -> None:
        now = self._clock()
        second = int(now)
        with self._lock:
            edge.in_flight -= 1
            if not edge.slices or edge.slices[-1].second != second:
                edge.forget(second - WINDOW + 1)
                edge.slices.append(_Slice(second))
            edge.slices[-1].codes[status(code)] += 1
            edge.slices[-1].took[_bucket(now - started)] += 1

    def figures(self) -> tuple[float, dict[Key, Figures]]:
        """The seconds that the figures are of, and those of each edge."""
        now = self._clock()
        first = int(now) - WINDOW + 1
        with self._lock:
            for edge in self._edges.values():
                edge.forget(first)
            found = {key: _figures(edge) for key, edge in self._edges.items()}
        return now - max(first, self._since), found


def _bucket(seconds: float) -> int:
    return math.ceil(_STEPS * math.log2(max(seconds, _SHORTEST)))


def _figures(edge: _Edge) -> Figures:
    codes, took = Counter[str](), Counter[int]()
    for each in edge.slices:
        codes.update(each.codes)  # a fraction of what `+=` takes
        took.update(each.took)
    return Figures(codes, _percentile(took, 50), _percentile(took, 99), edge.in_flight)


def _percentile(took: Counter[int], percent: int) -> float:
    """The upper bound of the bucket that has the nearest rank."""
    left = math.ceil(took.total() * percent / 100)
    for bucket in sorted(took):
        left -= took[bucket]
        if left <= 0:
            return float(2 ** (bucket / _STEPS))
    return 0.0
