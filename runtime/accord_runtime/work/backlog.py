"""How much work waits in a process's database, and whether it is too much to take more.

It is looked at every few seconds and not at each call: a bound is passed by what comes in between.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from accord.errors import ResourceExhausted
from accord_runtime.database import Tx
from accord_runtime.grpc.ids import made_at

BOUND: Final = 10_000
"""Items of work that may wait before more is refused, by default."""

EVENTS: Final = 10
"""Events that may wait for the broker for each item that may: an order has seven in the end."""

CLEAR: Final = 0.8
"""Share of the bounds below which work is taken again."""

LOOK: Final = 5.0
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The work of one queue."""

    waiting: int = 0
    """Items that wait for their time, their turn or their next attempt."""
    in_flight: int = 0
    """Items that are being tried."""
    parked: int = 0
    """Items that wait for an operator."""
    since: float = 0.0
    """When the oldest of the first two was enqueued, Unix seconds; 0 if there is none."""

    def age(self, now: float) -> float:
        """Seconds that the oldest has been waiting."""
        return max(0.0, now - self.since) if self.since else 0.0


def count(tx: Tx) -> dict[str, Waiting]:
    """The queues that have work, by name."""
    # By an index alone, as payloads are long.
    sql = "SELECT queue, state, COUNT(*) AS n, MIN(id) AS oldest FROM work GROUP BY queue, state"
    found = {(row["queue"], row["state"]): row for row in tx.all(sql)}
    sql = "SELECT queue, COUNT(*) AS n FROM work WHERE lease_until > 0 GROUP BY queue"
    leased = {row["queue"]: int(row["n"]) for row in tx.all(sql)}
    queues = {}
    for queue in sorted({name for name, _ in found}):
        ready, parked = (found.get((queue, state)) for state in ("ready", "parked"))
        queues[queue] = Waiting(
            waiting=max(0, ready["n"] - leased.get(queue, 0)) if ready else 0,
            in_flight=leased.get(queue, 0),
            parked=parked["n"] if parked else 0,
            since=made_at(ready["oldest"]) if ready else 0.0,
        )
    return queues


class Backlog:
    """What waited when it was last looked at, against a bound of items."""

    def __init__(self, bound: int = BOUND) -> None:
        self.full = False
        """Whether no more is taken: a bound was reached, and it is not `CLEAR` yet."""
        self._bound = bound
        self.queues: dict[str, Waiting] = {}
        """What waited when it was last looked at."""
        self._now = self._items = self._events = 0.0
        read: Callable[[Waiting], float]
        meter = metrics.get_meter("accord_runtime")
        for name, unit, text, read in (
            ("waiting", "{item}", "Work that waits.", lambda each: each.waiting),
            ("in_flight", "{item}", "Work that is being done.", lambda each: each.in_flight),
            ("parked", "{item}", "Work that waits for an operator.", lambda each: each.parked),
            ("oldest_age", "s", "Age of the oldest not parked.", lambda each: each.age(self._now)),
        ):

            def observe(
                _: CallbackOptions, read: Callable[[Waiting], float] = read
            ) -> list[Observation]:
                found = self.queues.items()
                return [Observation(read(each), {"queue": queue}) for queue, each in found]

            meter.create_observable_gauge(f"accord.work.{name}", [observe], unit, text)

    def note(self, queues: dict[str, Waiting], events: int, now: float) -> None:
        """Remember what waits: work, and events for the broker."""
        gone = dict.fromkeys(self.queues, Waiting())  # A gauge that ends in silence says nothing.
        self.queues, self._now, self._events = gone | queues, now, events
        self._items = sum(each.waiting + each.in_flight for each in queues.values())
        share = max(self._items / self._bound, events / (self._bound * EVENTS))
        self.full = share >= (CLEAR if self.full else 1.0)

    def check(self) -> None:
        """Refuse what would be more work, while there is too much.

        Raises:
            ResourceExhausted: there is (BACKLOG_FULL); come back when it was looked at again.
        """
        if self.full:
            text = f"{self._items:.0f} items of work and {self._events:.0f} events wait"
            # Not all at once.
            raise ResourceExhausted("BACKLOG_FULL", LOOK * random.uniform(1, 2), text)
