"""Rate limit: a token bucket per caller identity, for one method.

A bucket holds `burst` tokens and gains `per_second`; a call takes one. It is kept as one number per
caller, the time at which it will be full again (GCRA, ITU-T I.371: a token bucket by another name).
The number of identities is bounded: the one that has not been admitted for longest is forgotten,
whose bucket is the likeliest to be full anyway.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from accord.policies.types import Refused

RATE_LIMITED: Final = "RATE_LIMITED"
"""ErrorInfo reason of a refusal, which is RESOURCE_EXHAUSTED."""

MAX_IDENTITIES: Final = 10_000

_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """A token bucket per caller."""

    per_second: float
    burst: int


class RateLimiter:
    """The buckets of one method. Safe under threads; O(1)."""

    def __init__(self, policy: RatePolicy, *, clock: Callable[[], float]) -> None:
        self.policy = policy
        self._interval = 1 / policy.per_second
        self._capacity = policy.burst * self._interval + _SLACK  # seconds to fill it from empty
        self._clock = clock
        self._lock = Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def admit(self, identity: str) -> Refused | None:
        """Take a token of this caller; if there is none, when there will be one."""
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.get(identity, now), now) + self._interval
            wait = full_at - now - self._capacity
            if wait > 0:
                return Refused(wait)
            self._full_at[identity] = full_at
            self._full_at.move_to_end(identity)
            if len(self._full_at) > MAX_IDENTITIES:
                self._full_at.popitem(last=False)
            return None
