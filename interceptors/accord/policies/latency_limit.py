"""How many calls of one method may be at work: as many as come, until they queue at something.

Handlers that wait for something bounded of their own (a pool of connections) take longer the more
of them are at work, whatever the process has to spare. A dependency that has become slower makes
them take longer as well, and fewer calls at once would not help. So calls are watched in batches,

    rate = calls ended / time,    latency = calls at work, on average / rate    (Little's law)

and `floor` is the least latency of the last 5 to 10 s. That holds while as many come as go: where a
burst begins it says too much, where it ends too little. So it is compared with the mean of those
that have ended: the larger counts for the floor, the smaller as too long. When batches in a row
take far longer than the floor, a limit is tried: what the method needs when nothing queues, rate x
floor. If calls take less again, nearer to the floor than to what they took before (by their ratio),
the others had only queued: the limit stays, at 1.5 x rate x floor, until hardly anybody has to wait
for it. If not, the dependency is slower: there is no limit, and what calls take now is the floor.
Under a limit, the queue is drained once per window to find the floor again.

Sources: BBR (bandwidth x least round trip, windowed filters, PROBE_RTT), TCP Vegas, Netflix
concurrency-limits.
"""

import math
from enum import Enum
from typing import Final

BATCH_TIME: Final = 0.2
BATCH_CALLS: Final = 10
"""A batch is at least so many seconds, twice the floor, and so many calls."""

TOLERANCE: Final = 2.0
SLACK: Final = 0.005
"""Calls take too long from this many times the floor, and so many seconds, on."""

MIN_AT_WORK: Final = 2.0
"""Calls at work on average below which none of them can have queued behind another."""

SLOW_BATCHES: Final = 2
"""Batches in a row that take too long before a limit is tried: one pause is not enough."""

MIN_REST: Final = 1.0
MAX_REST: Final = 30.0
"""Seconds before another trial after one that showed nothing; twice as many each time."""

GAIN: Final = 1.5
"""The limit, as a multiple of what is needed when nothing queues: a floor may be found too low."""

CALM_BATCHES: Final = 5
CALM: Final = 0.1
"""A limit goes after so many batches in a row with others waiting at no more of the ends."""

WINDOW: Final = 5.0
"""Seconds after which a floor is found anew; the one before counts for as long again."""

DRAIN: Final = 0.7
"""The limit for one batch per window, as a multiple of what is needed."""

MAX_FLOOR: Final = 1.0
"""Seconds; what takes longer by itself is not watched: to try a limit would take too long."""


class Phase(Enum):
    """Whether a method has a limit."""

    FREE = "free"
    TRIAL = "trial"
    LIMITED = "limited"


class LatencyLimit:
    """The limit of one method. Its user holds a lock."""

    def __init__(self) -> None:
        self.limit = math.inf
        """Calls that may be at work; a whole number, or infinite."""
        self.phase = Phase.FREE
        self._floor = self._floor_before = math.inf
        self._window_ends = self._from = -math.inf
        self._kept = 0.0
        self._latency = self._rate = self._rate_before = 0.0
        self._seen = 0.0
        self._rest, self._rest_until = MIN_REST, -math.inf
        self._free(-math.inf)

    @property
    def floor(self) -> float:
        """Seconds that calls take when nothing queues; infinite while unknown."""
        return min(self._floor, self._floor_before)

    def begins(self, at_work: int, now: float) -> None:
        """A call begins, besides so many."""
        self._area += at_work * (now - self._seen)
        self._seen = now

    def ended(self, at_work: int, now: float, *, began: float, waiting: bool) -> None:
        """A call has ended, and so many others are at work; `waiting`: others wait to begin."""
        self._took += now - began
        self._area += (at_work + 1) * (now - self._seen)
        self._seen = now
        self._ended += 1
        self._waiting += waiting
        if self.phase is Phase.FREE and now - self._began < BATCH_TIME:
            return
        self.expire(now)
        if self._from == math.inf and at_work <= self.limit:
            self._from = now  # from now on no more are at work than are to be tried
        if self._began < self._from <= now:
            self._clear(now)
        elif now >= self._from and self._ended >= BATCH_CALLS:
            # A trial is over as soon as some that have begun in it have ended.
            trial = self.phase is Phase.TRIAL and self._ended < self.limit + BATCH_CALLS
            usual = self._latency if trial else min(self.floor, MAX_FLOOR)
            if now - self._began >= max(BATCH_TIME, 2 * usual):
                self._judge(at_work, now)

    def expire(self, now: float) -> None:
        """Time has passed: a limit that nothing has confirmed for too long goes."""
        if now >= self._until:
            self._free(now)

    def _judge(self, at_work: int, now: float) -> None:
        """A batch is complete."""
        rate = self._ended / (now - self._began)
        latency, mean, floor = self._area / self._ended, self._took / self._ended, self.floor
        calm = self._waiting <= CALM * self._ended
        self._clear(now)
        if self.phase is Phase.TRIAL:
            if calm or latency >= math.sqrt(floor * self._latency):
                self._floor = self._floor_before = latency
                self._free(now)
                return
            self.phase, self._row, self._rest = Phase.LIMITED, 0, MIN_REST
            self._rate_before = self._rate
        latency, longer = sorted((latency, mean))
        self._floor = min(self._floor, longer)
        window = now >= self._window_ends
        if window:
            self._floor_before, self._floor = self._floor, longer
            self._window_ends = now + WINDOW
        if self.phase is Phase.LIMITED:
            self._rate = max(self._rate, rate)
            needed = max(self._rate, self._rate_before) * self.floor
            if window:
                self._rate_before, self._rate = self._rate, rate
            self._adapt(needed, latency, now, calm=calm, drain=window)
        elif (
            latency > TOLERANCE * floor + SLACK
            and rate * latency >= MIN_AT_WORK
            and floor <= MAX_FLOOR
            and now >= self._rest_until
        ):
            self._row += 1
            if self._row == SLOW_BATCHES:
                self.phase, self._rate, self._latency = Phase.TRIAL, rate, latency
                self.limit, self._from = float(math.ceil(rate * floor)), math.inf
                drained = max(0.0, at_work - self.limit) / rate
                self._until = now + drained + 4 * latency + 2 * BATCH_TIME
        else:
            self._row = 0

    def _adapt(self, needed: float, latency: float, now: float, *, calm: bool, drain: bool) -> None:
        """Follow what the method needs."""
        self._until = now + 2 * WINDOW
        self._row = self._row + 1 if calm else 0
        if self._row == CALM_BATCHES:
            self._free(now)
        elif self._kept:
            self.limit, self._kept = self._kept, 0.0
        elif not calm:
            self.limit = float(int(GAIN * needed) + 1)
            if drain:
                self.limit, self._kept = max(1.0, float(int(DRAIN * needed))), self.limit
                self._from = now + latency

    def _free(self, now: float) -> None:
        if self.phase is Phase.TRIAL:
            self._rest_until, self._rest = now + self._rest, min(2 * self._rest, MAX_REST)
        self.limit, self.phase = math.inf, Phase.FREE
        self._from, self._until, self._kept, self._row = -math.inf, math.inf, 0.0, 0
        self._clear(now)

    def _clear(self, now: float) -> None:
        self._began, self._area, self._took, self._ended, self._waiting = now, 0.0, 0.0, 0, 0
