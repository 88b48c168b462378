"""What the servers of a process share: limits, counts, live policy, injected faults.

Its operator sees and changes it. A count has a name such as "rate_limit.refused", or
"rate_limit.dark" for what would have been refused. Names come from the code; methods may come from
callers, where a generic handler serves any name, so their number is bounded here.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Final

from accord.contract.live_overrides import Overrides
from accord.contract.names import GRPC, OPERATED
from accord.policies.limiter import Limiter
from accord.policies.queue import Line
from accord.policies.rate_limit import RateLimiter, RatePolicy
from accord.policies.stream_share import StreamShares
from accord.policies.types import Refused
from accord.server.fault_injection import FaultTable
from accord.server.refusal_log import RefusalLog
from accord.telemetry.edges import Edges

MAX_STREAMS: Final = 1000
"""Streams of one server that may be open at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    streams: int = MAX_STREAMS
    """Streams that may be open at once; they do not wait for a place."""


class ServerState:
    """One per process. Safe under threads."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        limits = limits or Limits()
        self._clock = clock
        self.overrides = Overrides()
        self.counts = Counts()
        self.faults = FaultTable(clock, random)
        self.refusals = RefusalLog(clock)
        self.edges = Edges(clock)
        """What its clients have in common with them, too."""
        self.serves: set[str] = set()
        """Names of the services that its servers were given."""
        self.calls: set[str] = set()
        """Names of the services that its channels were made for."""
        self.limiter = Limiter(clock=clock, random=random)
        self.max_streams = limits.streams
        self.streams = self.limiter.line(limits.streams, watched=False)
        """All streams together."""
        self.shares = StreamShares(limits.streams, random=random)
        self.lines: dict[str, Line] = {}
        """Other calls, by method."""
        self._lock = Lock()
        self._rates: dict[str, RateLimiter] = {}
        self._arrived: dict[str, count[int]] = {}

    def line(self, method: str, *, streaming: bool) -> Line | None:
        """What a method's calls count against.

        None for gRPC's own services and the operator's: health checks and the means to end an
        overload must work during one.
        """
        if method.startswith(OPERATED):
            return None
        if streaming:
            return self.streams
        name = _bounded(method, self.lines)
        if name not in self.lines:
            self.lines[name] = self.limiter.line()
        return self.lines[name]

    def arrivals(self, method: str) -> Iterator[int]:
        """Counts the calls of a method, by `next`, which no other thread can interrupt."""
        return self._arrived.setdefault(_bounded(method, self._arrived), count())

    def snapshot(self) -> dict[str, Mapping[str, int]]:
        """Of each served method the calls that have come, and the decisions of its policies."""
        return {
            method: {"calls": next(copy(arrived)), **self.counts.of(method)}
            for method, arrived in list(self._arrived.items())
            if not method.startswith(GRPC)  # called for ever, and says nothing
        }

    def rate(self, method: str, policy: RatePolicy, principal: str) -> Refused | None:
        """Take a token of this caller for this method."""
        with self._lock:
            found = self._rates.get(method)
            if found is None or found.policy != policy:
                found = self._rates[method] = RateLimiter(policy, clock=self._clock)
        return found.admit(principal)


MAX_METHODS: Final = 4096
"""Methods that a process tells apart; only a generic handler that serves any name has so many."""

OTHER: Final = "/other"
"""Stands for all others."""


def _bounded(method: str, known: Collection[str]) -> str:
    """The name under which a method is known, as long as there is room for it."""
    return method if method in known or len(known) < MAX_METHODS else OTHER


class Counts:
    """Counters since the start of the process. Safe under threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, method: str, name: str) -> None:
        """Count one decision; `method` as it travels, "/pkg.Service/Method"."""
        with self._lock:
            self._counts.setdefault(_bounded(method, self._counts), Counter())[name] += 1

    def of(self, method: str) -> Mapping[str, int]:
        """The counts of one method, as they are now."""
        return dict(self._counts.get(method, {}))

    def methods(self) -> set[str]:
        """Methods for which something was counted."""
        return set(self._counts)
