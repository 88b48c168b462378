"""How far a replay has come. Written by the replay, read by whatever displays it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shop.orders.v1.orders_pb2 import (
    ORDER_STATUS_CANCELLED,
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_FAILED,
    ORDER_STATUS_REJECTED,
    OrderStatus,
    StreamOrderUpdatesResponse,
)

ENDED: Final = frozenset(
    {
        ORDER_STATUS_CONFIRMED,
        ORDER_STATUS_REJECTED,
        ORDER_STATUS_FAILED,
        ORDER_STATUS_CANCELLED,
    }
)
"""States that an order never leaves."""

DRIVING: Final = "placing orders"
"""The stage in which orders are placed and followed; `done` counts those that have ended."""


def status_name(status: int) -> str:
    """`confirmed` for ORDER_STATUS_CONFIRMED; the number for one that is not known."""
    try:
        return OrderStatus.Name(OrderStatus.ValueType(status)).removeprefix("ORDER_STATUS_").lower()
    except ValueError:
        return str(status)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One update of the order that is watched closely; `at` is on the monotonic clock."""

    at: float
    update: StreamOrderUpdatesResponse


@dataclass(slots=True)
class Tally:
    """Counters of a replay.

    Attributes:
        orders: how many will be placed.
        stage: what is being done.
        done: how much of it is done.
        total: how much of it there is.
        placed: orders that CreateOrder has answered.
        retries: status code -> how many calls were repeated after it.
        watched: number of the order whose updates are kept in `journal`; 0 for none.
        on_change: called after every change.
    """

    orders: int
    stage: str = ""
    done: int = 0
    total: int = 0
    placed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    watched: int = 0
    journal: list[JournalEntry] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None
    _status: dict[int, int] = field(default_factory=dict)

    def watch(self, number: int) -> None:
        """Keeps the updates of this order in `journal`."""
        self.watched = number

    def begin(self, stage: str, total: int) -> None:
        """Something new is being done."""
        self.stage, self.done, self.total = stage, 0, total
        self.on_change()

    def step(self) -> None:
        """One more of it is done."""
        self.done += 1
        self.on_change()

    def placed_one(self) -> None:
        """CreateOrder has answered."""
        self.placed += 1
        self.on_change()

    def updated(self, number: int, update: StreamOrderUpdatesResponse) -> None:
        """An order has changed."""
        self._status[number] = update.status
        if number == self.watched:
            self.journal.append(JournalEntry(time.monotonic(), update))
        self.on_change()

    def retried(self, code: str) -> None:
        """A call will be repeated."""
        self.retries[code] += 1
        self.on_change()

    @property
    def ended(self) -> int:
        """Orders that have ended."""
        return sum(status in ENDED for status in self._status.values())

    def by_status(self) -> Mapping[str, int]:
        """Name of a status -> orders that were last seen in it, in the order of a good life."""
        counts = Counter(self._status.values())
        return {status_name(status): counts[status] for status in sorted(counts)}
