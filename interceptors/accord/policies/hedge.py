"""Hedging: a backup request when the first one takes longer than usual.

The backup is sent after a percentile of the method's own latency (p95: one call in twenty is
hedged), not before `min_delay`, at most one per call, and only within the target's retry budget.
The first answer wins, the loser is cancelled. Idempotent methods only. Sources: gRFC A6 (hedging;
not in Python's C-core), Finagle `BackupRequestFilter`, Dean and Barroso, "The Tail at Scale".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from accord.policies.budget import Budget

MIN_SAMPLES: Final = 20
"""Latencies that must be known before a call is hedged: a 95th percentile of fewer is a guess."""

REFRESH: Final = 0.25
"""Seconds for which a computed percentile is used."""


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """A backup request after a percentile of the latency, not before `min_delay` seconds."""

    percentile: float = 95.0
    min_delay: float = 0.001


@dataclass(frozen=True, slots=True)
class HedgeSnapshot:
    """Hedging of one method at one moment."""

    delay: float | None
    """Seconds; None: too little is known to hedge."""
    samples: int
    sent: int
    """Backup requests since the start."""
    refused: int
    """Those that the budget did not allow."""


class Hedge:
    """Hedging of one (target, method). Safe under threads."""

    def __init__(self, policy: HedgePolicy | None = None, *, clock: Callable[[], float]) -> None:
        self._policy = policy or HedgePolicy()
        self._clock = clock
        self._lock = Lock()
        self._digest = LatencyDigest(clock())
        self._delay = 0.0
        self._fresh_until = -math.inf
        self._sent = 0
        self._refused = 0

    def record(self, latency: float) -> None:
        """Seconds that an attempt took.

        For attempts that succeeded, and for the loser of a hedge at the time it was cancelled: left
        out, the slow ones would vanish from the digest and the delay would shrink ever further.
        """
        with self._lock:
            self._digest.record(self._clock(), latency)

    def delay(self) -> float | None:
        """Seconds after which the backup is due; None: this call is not hedged."""
        with self._lock:
            now = self._clock()
            if now < self._fresh_until:
                return self._delay
            self._digest.rotate(now)
            if self._digest.count < MIN_SAMPLES:
                return None
            self._delay = max(
                self._policy.min_delay, self._digest.percentile(self._policy.percentile)
            )
            self._fresh_until = now + REFRESH
            return self._delay

    def send(self, budget: Budget) -> bool:
        """Whether the backup, which is due, may be sent."""
        granted = budget.withdraw()
        with self._lock:
            self._sent += granted
            self._refused += not granted
        return granted

    def snapshot(self) -> HedgeSnapshot:
        """What it knows now."""
        delay = self.delay()
        with self._lock:
            return HedgeSnapshot(delay, self._digest.count, self._sent, self._refused)


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
