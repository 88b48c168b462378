"""Latency digest: percentiles of the recent past in constant memory.

A histogram whose bounds grow by 8 %, as HdrHistogram's do in kind: a percentile is at most 8 % too
high and never too low. Two generations of it cover the last 30 to 60 s (Finagle's
`WindowedPercentileHistogram` keeps five of 3 s).
"""

import math
from typing import Final

GENERATION: Final = 30.0
"""Seconds after which a histogram is set aside, and after twice as many forgotten."""

GROWTH: Final = 1.08
_ROUNDING: Final = 1e-9
"""What a share of a count may be off by: 55.5 % of 200 are 111 and not 112."""
_SHORTEST: Final = 1e-4
_LONGEST: Final = 3600.0
_SCALE: Final = 1 / math.log(GROWTH)
_SIZE: Final = math.ceil(math.log(_LONGEST / _SHORTEST) * _SCALE) + 1


class LatencyDigest:
    """Percentiles of the latency of the last 30 to 60 seconds. Not safe under threads by itself."""

    __slots__ = ("_count", "_current", "_older", "_older_count", "_since")

    def __init__(self, now: float) -> None:
        self._current = [0] * _SIZE
        self._count = 0
        self._older = [0] * _SIZE
        self._older_count = 0
        self._since = now

    def record(self, now: float, latency: float) -> None:
        """Add a latency in seconds."""
        if now - self._since >= GENERATION:
            self.rotate(now)
        slot = 0
        if latency > _SHORTEST:
            slot = math.ceil(math.log(min(latency, _LONGEST) / _SHORTEST) * _SCALE)
        self._current[slot] += 1
        self._count += 1

    def rotate(self, now: float) -> None:
        """Set the current generation aside, and forget what is too old."""
        if now - self._since < GENERATION:
            return
        fresh = now - self._since < 2 * GENERATION
        self._older = self._current if fresh else [0] * _SIZE
        self._older_count = self._count if fresh else 0
        self._current = [0] * _SIZE
        self._count = 0
        self._since = now

    @property
    def count(self) -> int:
        """Latencies that it holds."""
        return self._count + self._older_count

    def percentile(self, percent: float) -> float:
        """Seconds within which `percent` of the calls were over, from above; 0 without any."""
        rank = math.ceil(self.count * percent / 100 - _ROUNDING)
        seen = 0
        for slot in range(_SIZE):
            seen += self._current[slot] + self._older[slot]
            if seen and seen >= rank:
                return _SHORTEST * GROWTH**slot
        return 0.0
