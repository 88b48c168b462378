"""The short queue before a concurrency limit.

CRITICAL before DEFAULT before SHEDDABLE, first come first served within each. When there is no
more room, the newest waiter of the lowest priority is shed in favour of a more important newcomer:
it has waited the least. Source: failsafe-go's prioritised limiters, DAGOR (WeChat's overload
control).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from accord.policies.types import Priority, Refused


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The short queue before the limit."""

    length: int = 20
    """Waiters of all priorities together."""
    max_wait: float = 0.5
    """Seconds that a driver lets a call wait."""


class Permit:
    """Leave to work on one call; given back with `release`."""

    __slots__ = ("held", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.held = True


class Waiter:
    """A place in the queue. Once notified, exactly one of `permit` and `refused` is set."""

    __slots__ = ("notify", "permit", "priority", "refused")

    def __init__(self, priority: Priority, notify: Callable[[], None]) -> None:
        self.priority = priority
        self.notify = notify
        self.permit: Permit | None = None
        self.refused: Refused | None = None


class PriorityQueue:
    """Waiters in the order in which they are served. Its user bounds it and holds a lock."""

    __slots__ = ("_by_priority", "length")

    def __init__(self) -> None:
        self._by_priority: dict[Priority, deque[Waiter]] = {each: deque() for each in Priority}
        self.length = 0
        """Waiters of all priorities."""

    def __len__(self) -> int:
        return self.length

    def push(self, waiter: Waiter) -> None:
        """The last of its priority."""
        self._by_priority[waiter.priority].append(waiter)
        self.length += 1

    def pop(self) -> Waiter:
        """Takes out the one to be served next. Raises StopIteration if nobody waits."""
        waiter = next(queue for queue in self._by_priority.values() if queue).popleft()
        self.length -= 1
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Takes out one that gives up. Raises ValueError if it does not wait."""
        self._by_priority[waiter.priority].remove(waiter)
        self.length -= 1

    def shed(self, newcomer: Priority) -> Waiter | None:
        """Takes out the newest of the least important, if less important than a newcomer."""
        for priority in reversed(Priority):
            if priority > newcomer and self._by_priority[priority]:
                self.length -= 1
                return self._by_priority[priority].pop()
        return None
