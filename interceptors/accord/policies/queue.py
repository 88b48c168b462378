"""Calls that wait to begin, and those of one method that are at work.

CRITICAL before DEFAULT before SHEDDABLE, first come first served within each. How long a call may
wait when there is too much work depends on its priority: the least important gives up first.
Sources: DAGOR (WeChat's overload control: what counts is the time in the queue), failsafe-go's
prioritised limiters.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from accord.policies.latency_limit import LatencyLimit, Phase
from accord.policies.types import Priority

PATIENCE: Final = {Priority.CRITICAL: 2.0, Priority.DEFAULT: 0.25, Priority.SHEDDABLE: 0.1}
"""Seconds that a call may wait while there is too much work."""


class Line:
    """The calls of one method, or of all streams: those at work and those that wait for them."""

    __slots__ = ("bound", "in_flight", "queued", "waiting", "watch")

    def __init__(self, bound: float = math.inf, watch: LatencyLimit | None = None) -> None:
        """`bound` is declared; `watch` finds out whether there must be less."""
        self.bound = bound
        self.watch = watch
        self.in_flight = 0
        self.queued = 0
        self.waiting: dict[Priority, deque[Waiter]] = {each: deque() for each in Priority}

    @property
    def limit(self) -> float:
        """Calls that may be at work now."""
        return self.bound if self.watch is None else min(self.bound, self.watch.limit)

    @property
    def limited(self) -> bool:
        """Whether calls may be refused because of the limit: it is declared, or proven."""
        return self.bound < math.inf or (
            self.watch is not None and self.watch.phase is Phase.LIMITED
        )

    @property
    def room(self) -> bool:
        """Whether another call may begin."""
        watch = self.watch
        return self.in_flight < self.bound and (watch is None or self.in_flight < watch.limit)

    def first(self) -> "Waiter":
        """The one to be served next. Raises StopIteration if nobody waits."""
        return next(queue[0] for queue in self.waiting.values() if queue)

    def since(self) -> float:
        """When the one who has waited the longest came; infinite if nobody waits."""
        return min((queue[0].since for queue in self.waiting.values() if queue), default=math.inf)

    def push(self, waiter: "Waiter") -> None:
        """The last of its priority."""
        self.waiting[waiter.priority].append(waiter)
        self.queued += 1

    def remove(self, waiter: "Waiter") -> None:
        """Takes out one who begins or gives up. Raises ValueError if it does not wait."""
        self.waiting[waiter.priority].remove(waiter)
        self.queued -= 1


class Permit:
    """Leave to work on one call; given back with `release`."""

    __slots__ = ("begun", "held", "line", "since")

    def __init__(self, line: Line, since: float) -> None:
        self.line = line
        self.since = since
        self.held = True
        self.begun = True
        """Not yet, for one who waits: see `Limiter.begin`."""


class Waiter:
    """A place in a line; `permit` is set when its call may begin."""

    __slots__ = ("line", "notify", "permit", "priority", "since")

    def __init__(
        self, line: Line, priority: Priority, since: float, notify: Callable[[], None]
    ) -> None:
        self.line = line
        self.priority = priority
        self.since = since
        self.notify = notify
        self.permit: Permit | None = None
