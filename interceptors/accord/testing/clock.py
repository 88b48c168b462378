"""A clock that a test can move, and the switch that turns waiting off."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from accord import waiting


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

    What would have been waited moves `clock`, which should be the mesh's own; its deadlines and
    breakers then see that time has passed. A mesh with another clock does not wait either, but for
    it no time passes. gRPC's own timers (the deadline of an attempt, keepalive) and a server's
    delays stay real.

    Args:
        clock: the clock to move; without one, a new one.

    Yields:
        The clock.
    """
    clock = clock or Clock()
    before, waiting.skip = waiting.skip, clock._skip
    try:
        yield clock
    finally:
        waiting.skip = before
