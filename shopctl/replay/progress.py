"""How far a replay has come: counters, written by the replay, and how they are shown."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from shop.orders.v1 import orders_pb2 as pb
from shopctl.formatting import enum_name

ENDED: Final = frozenset(
    {
        pb.ORDER_STATUS_CONFIRMED,
        pb.ORDER_STATUS_REJECTED,
        pb.ORDER_STATUS_FAILED,
        pb.ORDER_STATUS_CANCELLED,
    }
)
"""States that an order never leaves."""

DRIVING: Final = "placing orders"
"""The stage in which orders are placed and followed; `done` counts those that have ended."""

STEPS: Final = 20
"""Plain lines while orders are under way."""

STYLES: Final = {"confirmed": "green", "rejected": "yellow", "failed": "yellow"}


def status_name(status: int) -> str:
    """`confirmed` for ORDER_STATUS_CONFIRMED; the number for one that is not known."""
    return enum_name(pb.OrderStatus.items(), status).lower()


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
        journal: these, each with its time on the monotonic clock.
        on_change: called after every change.
    """

    orders: int
    stage: str = ""
    done: int = 0
    total: int = 0
    placed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    watched: int = 0
    journal: list[tuple[float, pb.StreamOrderUpdatesResponse]] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None
    _status: dict[int, int] = field(default_factory=dict)

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

    def updated(self, number: int, update: pb.StreamOrderUpdatesResponse) -> None:
        """An order has changed."""
        self._status[number] = update.status
        if number == self.watched:
            self.journal.append((time.monotonic(), update))
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


class TallyProgress(Progress):
    """What is being done, a bar, and how many orders are in which state. For a terminal."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        super().__init__(TextColumn("{task.description:<19}"), BarColumn(), MofNCompleteColumn())
        self.add_task("")

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and the counts below it."""
        tally = self.tally
        for task in self.tasks:
            task.description, task.completed = tally.stage, tally.done
            task.total = tally.total or None  # `update` would take None for no change
        yield self.make_tasks_table(self.tasks)
        counts = Text(f"placed {tally.placed}/{tally.orders}")
        for status, number in tally.by_status().items():
            counts.append("  ").append(f"{status} {number}", STYLES.get(status, ""))
        if tally.retries:
            repeated = ", ".join(f"{code} {number}" for code, number in tally.retries.items())
            counts.append("  ").append(f"repeated: {repeated}", "dim")
        yield counts


@contextmanager
def printed_lines(tally: Tally, stream: TextIO) -> Iterator[None]:
    """Prints plain lines while the block runs.

    One when a stage begins and one when it ends, and one per twentieth of the orders that have
    ended, so that a program can tell how far it is.
    """
    printed = ("", -1)

    def changed() -> None:
        nonlocal printed
        steps = STEPS if tally.stage == DRIVING else 1
        part = steps * tally.done // tally.total if tally.total else 0
        if printed == (tally.stage, part):
            return
        printed = (tally.stage, part)
        text = f"{tally.stage} {tally.done}/{tally.total}" if tally.total else tally.stage
        if tally.stage == DRIVING:
            counts = [f"{name} {number}" for name, number in tally.by_status().items()]
            text += "; " + ", ".join([f"placed {tally.placed}", *counts])
        if tally.retries:
            text += f"; {sum(tally.retries.values())} calls repeated"
        print(text, file=stream, flush=True)

    tally.on_change = changed
    try:
        yield
    finally:
        tally.on_change = lambda: None
