"""Shows how far a replay has come: a live panel on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shopctl.replay.tally import DRIVING, Tally

PER_SECOND: Final = 10
STEPS: Final = 20
"""Plain lines while orders are under way."""

STYLES: Final = {"confirmed": "green", "rejected": "yellow", "failed": "yellow"}


def panel(tally: Tally) -> RenderableType:
    """What is being done, a bar, and how many orders are in which state."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        f"{tally.stage:<19}",
        ProgressBar(
            total=tally.total or None, completed=tally.done, width=40, pulse=not tally.total
        ),
        f"{tally.done}/{tally.total}" if tally.total else "",
    )
    counts = Text(f"placed {tally.placed}/{tally.orders}")
    for status, number in tally.by_status().items():
        counts.append("  ").append(f"{status} {number}", STYLES.get(status, ""))
    if tally.retries:
        repeated = ", ".join(f"{code} {number}" for code, number in tally.retries.items())
        counts.append("  ").append(f"repeated: {repeated}", "dim")
    return Group(bar, counts)


@contextmanager
def live(tally: Tally, render: Callable[[Tally], RenderableType] = panel) -> Iterator[None]:
    """Redraws `render` while the block runs. For a terminal."""
    with Live(get_renderable=lambda: render(tally), refresh_per_second=PER_SECOND):
        yield


@contextmanager
def lines(tally: Tally, stream: TextIO) -> Iterator[None]:
    """Prints plain lines while the block runs.

    One when a stage begins and one when it ends, and one per twentieth of the orders that have
    ended, so that a program can tell how far it is.
    """
    printer = _Lines(tally, stream)
    tally.on_change = printer.changed
    try:
        yield
    finally:
        tally.on_change = lambda: None


def console() -> Console:
    """Where results are printed; wide enough for a table when nobody tells how wide."""
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


class _Lines:
    def __init__(self, tally: Tally, stream: TextIO) -> None:
        self._tally = tally
        self._stream = stream
        self._printed = ("", -1)

    def changed(self) -> None:
        tally = self._tally
        steps = STEPS if tally.stage == DRIVING else 1
        part = steps * tally.done // tally.total if tally.total else 0
        if self._printed == (tally.stage, part):
            return
        self._printed = (tally.stage, part)
        text = f"{tally.stage} {tally.done}/{tally.total}" if tally.total else tally.stage
        if tally.stage == DRIVING:
            counts = [f"{name} {number}" for name, number in tally.by_status().items()]
            text += "; " + ", ".join([f"placed {tally.placed}", *counts])
        if tally.retries:
            text += f"; {sum(tally.retries.values())} calls repeated"
        print(text, file=self._stream, flush=True)
