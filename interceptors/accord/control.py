"""What is shared by the servers of a process, and what its operator sees and changes of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from accord.contract import MethodPolicy
from accord.counts import Counts
from accord.faults import FaultTable
from accord.overrides import Overrides
from accord.policies.gradient import Gradient2, GradientPolicy
from accord.policies.limiter import Limiter
from accord.policies.queue import QueuePolicy
from accord.policies.ratelimit import RateLimiter, RatePolicy
from accord.policies.refused import Refused

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


class Control:
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

    def limiter(self, method: str, *, streaming: bool) -> Limiter | None:
        """What a method's calls count against.

        None for gRPC's own services and the operator's: health checks and the means to end an
        overload must work during one.
        """
        if method.startswith(_UNLIMITED):
            return None
        return self.streams if streaming else self.calls

    def rate(self, policy: MethodPolicy, principal: str) -> Refused | None:
        """Take a token of this caller for this method."""
        wanted = policy.limit.rate
        if wanted is None:
            return None
        found = self._rates.get(policy.method)
        if found is None or found[0] != wanted:
            limiter = RateLimiter(wanted, clock=self._clock)
            found = self._rates[policy.method] = (wanted, limiter)
        return found[1].admit(principal)
