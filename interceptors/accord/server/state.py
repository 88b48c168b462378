"""What the servers of a process share: limits, counts, live policy, injected faults.

Its operator sees and changes it. A count has a name such as "rate_limit.refused", or
"rate_limit.dark" for what would have been refused. Names come from the code; methods may come from
callers, where a generic handler serves any name, so their number is bounded here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from accord.contract.live_overrides import Overrides
from accord.contract.policy_types import MethodPolicy
from accord.policies.gradient import Gradient2, GradientPolicy
from accord.policies.limiter import Limiter
from accord.policies.queue import QueuePolicy
from accord.policies.rate_limit import RateLimiter, RatePolicy
from accord.policies.types import Refused
from accord.server.fault_injection import FaultTable

MAX_STREAMS: Final = 1000
"""Streams of one server that may be open at once."""

MAX_WAITING: Final = 100
"""Calls that may wait for a place: a burst is worked off, and the wait of each is bounded."""

_UNLIMITED: Final = ("/grpc.", "/accord.ops.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    concurrency: GradientPolicy = field(default_factory=GradientPolicy)
    """Calls with one request and one response."""
    queue: QueuePolicy = field(default_factory=lambda: QueuePolicy(length=MAX_WAITING))
    streams: int = MAX_STREAMS
    """All other calls: they have a fixed limit of their own and do not wait."""


@dataclass(frozen=True, slots=True)
class ServedSnapshot:
    """One served method at one moment, since the start of the process."""

    method: str
    """As it travels: "/pkg.Service/Method"."""
    calls: int
    """Those that have come, whatever became of them."""
    decisions: Mapping[str, int]
    """What policies decided, by the name of a count."""


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
        self.calls = Limiter(
            Gradient2(limits.concurrency), limits.queue, clock=clock, random=random
        )
        self.streams = Limiter(
            None, QueuePolicy(length=0), clock=clock, random=random, fixed=limits.streams
        )
        self._rates: dict[str, tuple[RatePolicy, RateLimiter]] = {}
        self._arrived: dict[str, count[int]] = {}

    def limiter(self, method: str, *, streaming: bool) -> Limiter | None:
        """What a method's calls count against.

        None for gRPC's own services and the operator's: health checks and the means to end an
        overload must work during one.
        """
        if method.startswith(_UNLIMITED):
            return None
        return self.streams if streaming else self.calls

    def arrivals(self, method: str) -> Iterator[int]:
        """Counts the calls of a method, by `next`, which no other thread can interrupt."""
        name = method if method in self._arrived or len(self._arrived) < MAX_METHODS else OTHER
        return self._arrived.setdefault(name, count())

    def snapshot(self) -> tuple[ServedSnapshot, ...]:
        """The methods that are served; gRPC's own are called for ever and say nothing."""
        return tuple(
            ServedSnapshot(method, next(copy(arrived)), self.counts.of(method))
            for method, arrived in list(self._arrived.items())
            if not method.startswith(_UNLIMITED[0])
        )

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
