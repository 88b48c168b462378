"""A sliding window in constant memory and time.

Time is cut into buckets on a fixed grid, `buckets` to a window; a bucket that falls out of the
window takes its counts with it. So the window looks back over at least `length * (1 - 1/buckets)`
and never over more than `length` seconds. Source: resilience4j `SlidingTimeWindowMetrics`, Finagle
`WindowedAdder`.
"""

from typing import Final

BUCKETS: Final = 10
"""Buckets of a window: its edge is exact to a tenth."""


class Window:
    """Counts of the last `length` seconds: `calls`, and `marks`, whatever its user marks.

    Not safe under threads by itself: its user holds a lock. `now` comes from a monotonic clock; a
    time before the latest one counts as the latest.
    """

    __slots__ = ("_calls", "_marks", "_rate", "_tick", "calls", "marks")

    def __init__(self, length: float, buckets: int = BUCKETS) -> None:
        self.calls = 0
        self.marks = 0
        self._calls = [0] * buckets
        self._marks = [0] * buckets
        self._rate = buckets / length
        self._tick = 0

    def add(self, now: float, calls: int, marks: int) -> None:
        """Count `calls` and `marks` at this time."""
        if int(now * self._rate) > self._tick:
            self.advance(now)
        slot = self._tick % len(self._calls)
        if calls:
            self._calls[slot] += calls
            self.calls += calls
        if marks:
            self._marks[slot] += marks
            self.marks += marks

    def advance(self, now: float) -> None:
        """Drop what has fallen out of the window."""
        tick = int(now * self._rate)
        if tick <= self._tick:
            return
        size = len(self._calls)
        if tick - self._tick >= size:
            self.clear()
        else:
            for passed in range(self._tick + 1, tick + 1):
                slot = passed % size
                self.calls -= self._calls[slot]
                self.marks -= self._marks[slot]
                self._calls[slot] = self._marks[slot] = 0
        self._tick = tick

    def clear(self) -> None:
        """Forget everything."""
        size = len(self._calls)
        self.calls = self.marks = 0
        self._calls = [0] * size
        self._marks = [0] * size
