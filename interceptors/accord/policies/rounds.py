"""When an event loop takes calls in and when it begins them, if it has not the time for both.

grpc.aio accepts a call in every other turn of its loop. Where handlers hold the loop, calls queue
inside gRPC, where nobody sees how long they wait or how important they are, and no timer is late.
So while calls come late, the loop works in rounds: it takes in what has come, until nobody comes
for a moment, and then begins calls for some time, the next ones when those before have begun.
"""

import math
from typing import Final

LATE: Final = 0.002
"""Seconds between a call's arrival and its turn to begin which show that the loop is held."""

ROUND: Final = 0.1
"""Seconds in which calls are begun before others are taken in."""

MAX_INTAKE: Final = 0.05
"""Seconds in which calls are taken in, at most."""

QUIET: Final = 0.001
"""Seconds without an arrival after which all have been taken in. The loop waits meanwhile: the
thread that brings it gRPC's events must have its turn too."""

BATCH_TIME: Final = 0.01
MAX_BATCH: Final = 16
"""So many seconds' worth of calls begin at once, by what those before have taken: at least one, and
at most twice as many as before."""


class Rounds:
    """The rounds of one loop. Its user holds a lock, and asks `turn` again after `pause`."""

    __slots__ = ("_batch", "_began", "_came", "_count", "_intake", "_since", "active")

    def __init__(self) -> None:
        self.active = False
        """While it is, calls do not begin by themselves: they wait for `turn`."""
        self._intake = False
        self._came = False
        self._since = -math.inf
        self._began = 0.0
        self._count = 0
        self._batch = 1

    def come(self, waited: float, now: float) -> bool:
        """A call could begin, `waited` seconds after it came; returns whether it has to wait."""
        self._came = True
        if not self.active and waited >= LATE and now - self._since >= ROUND:
            self.active = True
            self._take_in(now)
        return self.active

    @property
    def pause(self) -> float:
        """Seconds until `turn` is to be asked again; 0: in the next turn of the loop."""
        return QUIET if self._intake else 0.0

    def turn(self, now: float, *, waiting: bool, pending: bool) -> int:
        """How many calls may begin in this turn of the loop.

        `waiting`: whether any could; `pending`: some may already, and have not yet.
        """
        if self._intake:
            if self._came and now - self._since < MAX_INTAKE:
                self._came = False
                return 0
            self._intake, self._since = False, now
        elif pending:
            return 0
        else:
            if self._count:
                each = (now - self._began) / self._count
                most = min(MAX_BATCH, 2 * self._batch)
                self._batch = max(1, min(most, int(BATCH_TIME / max(each, 1e-9))))
                self._count = 0
            if waiting and now - self._since >= ROUND:
                self._take_in(now)
                if self._intake:
                    return 0
        self.active = waiting
        return self._batch

    def _take_in(self, now: float) -> None:
        # Where many begin in no time, they do not hold the loop: something else does.
        self._intake, self._since = self._batch < MAX_BATCH, now

    def begun(self, now: float) -> None:
        """A call has begun."""
        if not self._count:
            self._began = now
        self._count += 1
