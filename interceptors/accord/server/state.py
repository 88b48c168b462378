"""What the servers of a process share: limits, counts, live policy, injected faults.

Its operator sees and changes it. A count has a name such as "rate_limit.refused", or
"rate_limit.dark" for what would have been refused. Names come from the code; methods may come from
callers, where a generic handler serves any name, so their number is bounded here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import Final

from accord.contract.live_overrides import Overrides
from accord.contract.policy_types import MethodPolicy
from accord.policies.limiter import Limiter
from accord.policies.queue import Line
from accord.policies.rate_limit import RateLimiter, RatePolicy
from accord.policies.stream_share import StreamShares
from accord.policies.types import Refused
from accord.server.fault_injection import FaultTable

MAX_STREAMS: Final = 1000
"""Streams of one server that may be open at once."""

_UNLIMITED: Final = ("/grpc.", "/accord.ops.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    streams: int = MAX_STREAMS
    """Streams that may be open at once; they do not wait for a place."""


class ServerState:
    """One per process. Used inside one event loop, or under the lock of `mesh.sync`."""

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
        self.limiter = Limiter(clock=clock, random=random)
        self.max_streams = limits.streams
        self.streams = self.limiter.line(limits.streams, watched=False)
        """All streams together."""
        self.shares = StreamShares(limits.streams, random=random)
        self.lines: dict[str, Line] = {}
        """Other calls, by method."""
        self._rates: dict[str, tuple[RatePolicy, RateLimiter]] = {}
        self._arrived: dict[str, count[int]] = {}

    def line(self, method: str, *, streaming: bool) -> Line | None:
        """What a method's calls count against.

        None for gRPC's own services and the operator's: health checks and the means to end an
        overload must work during one.
        """
        if method.startswith(_UNLIMITED):
            return None
        if streaming:
            return self.streams
        if method not in self.lines and len(self.lines) >= MAX_METHODS:
            method = OTHER
        found = self.lines.get(method)
        if found is None:
            found = self.lines[method] = self.limiter.line()
        return found

    def arrivals(self, method: str) -> Iterator[int]:
        """Counts the calls of a method, by `next`, which no other thread can interrupt."""
        name = method if method in self._arrived or len(self._arrived) < MAX_METHODS else OTHER
        return self._arrived.setdefault(name, count())

    def snapshot(self) -> dict[str, Mapping[str, int]]:
        """Of each served method the calls that have come, and the decisions of its policies."""
        return {
            method: {"calls": next(copy(arrived)), **self.counts.of(method)}
            for method, arrived in list(self._arrived.items())
            if not method.startswith("/grpc.")  # called for ever, and says nothing
        }

    def rate(self, policy: MethodPolicy, principal: str) -> Refused | None:
        """Take a token of this caller for this method."""
        wanted = None if policy.limit is None else policy.limit.rate
        if wanted is None:
            return None
        found = self._rates.get(policy.method)
        if found is None or found[0] != wanted:
            limiter = RateLimiter(wanted, clock=self._clock)
            found = self._rates[policy.method] = (wanted, limiter)
        return found[1].admit(principal)


MAX_METHODS: Final = 4096
"""Methods that a process tells apart; only a generic handler that serves any name has so many."""

OTHER: Final = "/other"
"""Stands for all others."""


class Counts:
    """Counters since the start of the process.

    Used inside one event loop, or under the lock of `mesh.sync`.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, method: str, name: str) -> None:
        """Count one decision; `method` as it travels, "/pkg.Service/Method"."""
        found = self._counts.get(method)
        if found is None:
            known = len(self._counts) < MAX_METHODS
            found = self._counts.setdefault(method if known else OTHER, Counter())
        found[name] += 1

    def of(self, method: str) -> Mapping[str, int]:
        """The counts of one method, as they are now."""
        return dict(self._counts.get(method, {}))

    def methods(self) -> set[str]:
        """Methods for which something was counted."""
        return set(self._counts)
