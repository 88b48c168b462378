"""Gradient2: the number of calls a server can work on at once, found by watching their duration.

When calls take longer than they used to, work is queueing and the limit falls; otherwise it grows
by a little headroom:

    gradient = clamp(tolerance * long / short, 0.5, 1)
    limit    = (1 - smoothing) * limit + smoothing * (limit * gradient + headroom)

`short` is the latest duration, `long` an exponential average of many. Source: Netflix
concurrency-limits `Gradient2Limit` with `WindowedLimit`; Envoy's adaptive concurrency is its kin.

Two differences. Netflix's headroom is always 4, with which a limit cannot fall below 8 even if
every sample says so; here it is at most a quarter of the limit, so that `minimum` can be reached.
And a sample is the mean of 0.25 s rather than 1 s, to react sooner; the long average looks back
over four times as many, so over the same time. As with Netflix's, an overload that lasts for
several minutes without a break becomes what is usual, and the limit climbs again.
"""

from dataclasses import dataclass
from typing import Final

MAX_HEADROOM: Final = 4.0
"""Calls. What may queue unseen."""

HEADROOM_SHARE: Final = 0.25
WARM_UP: Final = 10
"""Samples of which the first long average is the mean."""

DRIFT: Final = 0.95
"""Factor by which a long average that is twice the short one is brought down, per sample."""


@dataclass(frozen=True, slots=True)
class GradientPolicy:
    """Bounds and speed of the limit."""

    initial: int = 20
    minimum: int = 1
    maximum: int = 200
    smoothing: float = 0.2
    """How much of each step is taken, over (0, 1]."""
    tolerance: float = 1.5
    """How much longer than usual calls may take before the limit falls."""
    long_window: int = 2400
    """Samples that the long average looks back over."""


class Gradient2:
    """The algorithm alone: one sample in, one limit out. Its user holds a lock."""

    __slots__ = ("_count", "_limit", "_long", "_policy")

    def __init__(self, policy: GradientPolicy | None = None) -> None:
        self._policy = policy or GradientPolicy()
        self._limit = float(self._policy.initial)
        self._long = 0.0
        self._count = 0

    @property
    def limit(self) -> float:
        """Calls at once, between minimum and maximum; its whole part counts."""
        return self._limit

    @property
    def usual(self) -> float:
        """Seconds that calls usually take; 0 while unknown."""
        return self._long

    def update(self, duration: float, in_flight: int) -> float:
        """The new limit after calls that took `duration` seconds with `in_flight` at once."""
        policy, short = self._policy, max(duration, 1e-9)
        self._count += 1
        if self._count <= WARM_UP:
            self._long += (short - self._long) / self._count
        else:
            self._long += (short - self._long) * 2 / (policy.long_window + 1)
        gradient = max(0.5, min(1.0, policy.tolerance * self._long / short))
        if self._long > 2 * short:
            self._long *= DRIFT  # the load that made it long is over
        if in_flight < self._limit / 2:
            return self._limit  # what is not used says nothing about what could be
        headroom = min(MAX_HEADROOM, HEADROOM_SHARE * self._limit)
        wanted = self._limit * gradient + headroom
        limit = (1 - policy.smoothing) * self._limit + policy.smoothing * wanted
        self._limit = max(float(policy.minimum), min(float(policy.maximum), limit))
        return self._limit
