"""How long to wait before a child that died is started again."""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Exponential back-off, in seconds: `first` doubling to `ceiling`.

    A child that has been healthy for `forgive_after` seconds starts again at `first`. There is no
    jitter: the children of one machine do not compete for anything when they restart.
    """

    first: float = 0.2
    ceiling: float = 10.0
    forgive_after: float = 30.0
    _next: float = 0.0

    def next_delay(self, healthy_for: float) -> float:
        """Seconds to wait now, given how long the child had been healthy before it died."""
        if healthy_for >= self.forgive_after or not self._next:
            self._next = self.first
        delay = self._next
        self._next = min(self._next * 2, self.ceiling)
        return delay
