"""A clock that a test can move, random numbers that it states, and no waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from accord.client import skip_waiting


class Clock:
    """Real time plus what was skipped, in seconds: a mesh's `clock`.

    It does not stand still, because gRPC's own timers run in real time: a deadline means the same
    to both. It never goes back.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._lock = Lock()
        self.waits: list[float] = []
        """The back-offs that were skipped under `no_waiting`, in seconds, in their order."""

    def __call__(self) -> float:
        """Seconds, monotonic."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at once: an open breaker comes to its end, a cached answer expires.

        Raises ValueError for a negative time.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back: {seconds:g} s")
        with self._lock:
            self._ahead += seconds

    def _skip(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.advance(seconds)


@contextmanager
def no_waiting(clock: Clock | None = None) -> Iterator[Clock]:
    """Turn waiting off in this process: back-off takes no time, a due hedge is sent at once.

    What would have been waited moves `clock`, or a new one, which should be the mesh's own; its
    deadlines and breakers then see that time has passed. A mesh with another clock does not wait
    either, but for it no time passes. gRPC's own timers (the deadline of an attempt, keepalive) and
    a server's delays stay real. Yields the clock.
    """
    clock = clock or Clock()
    before, skip_waiting.skip = skip_waiting.skip, clock._skip
    try:
        yield clock
    finally:
        skip_waiting.skip = before


class Draws:
    """A mesh's `random`: gives these numbers in turn, over [0, 1), and the last one for ever.

    `Draws(0.5)` makes every full-jitter back-off half of its upper bound.
    """

    def __init__(self, *numbers: float) -> None:
        """At least one number. Raises ValueError for one outside of [0, 1)."""
        if not numbers or not all(0 <= number < 1 for number in numbers):
            raise ValueError("draws are numbers from 0 to less than 1")
        self._numbers = list(numbers)

    def __call__(self) -> float:
        """The next number."""
        return self._numbers.pop(0) if len(self._numbers) > 1 else self._numbers[0]
