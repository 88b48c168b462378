"""`shopctl demo`."""

import sys
from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from shopctl.client import running_offset
from shopctl.errors import ExitCode
from shopctl.options import DEFAULT_HOME, HomeOption, ShopOffsetOption
from shopctl.replay import report, session
from shopctl.replay.progress import Tally, TallyProgress, printed_lines, status_name
from shopctl.terminal import is_terminal

app = typer.Typer()

CARD: Final = "tok_slow"
"""A card that takes two seconds to be charged, so that there is something to see."""

HEIGHT: Final = 10


@app.command()
def demo(
    orders: Annotated[int, typer.Option("--orders", "-n", min=1, max=1000)] = 20,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
) -> None:
    """Place a few real orders beside a live watch of one of them, and reconcile the books.

    It is a small `shopctl replay`; exit codes are the same.
    """
    settings = session.Settings(
        orders=orders,
        concurrency=4,
        declined=10.0,
        short=10.0,
        card=CARD,
        seed=1,
        timeout=120.0,
        scale_factor=0.01,
        offset=running_offset(home, offset) or 0,
        home=home,
    )
    tally = Tally(orders)
    console = report.console()
    people = is_terminal()
    with TwoPanels(tally) if people else printed_lines(tally, sys.stderr):
        result = session.replay(settings, tally)
    if not people:
        console.print(updates(tally))
    console.print(report.table(result.verdict))
    console.print(report.summary(settings, result, tally))
    if not result.verdict.agrees:
        raise typer.Exit(ExitCode.FAILED)


class TwoPanels(TallyProgress):
    """The replay on the left, one order on the right."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The two side by side."""
        both = Table.grid(expand=True)
        both.add_column(ratio=3)
        both.add_column(ratio=2)
        both.add_row(
            Panel(Group(*super().get_renderables()), title="shopctl replay", height=HEIGHT),
            Panel(updates(self.tally), title="shopctl order watch", height=HEIGHT),
        )
        yield both


def updates(tally: Tally) -> RenderableType:
    """The life of the order that is watched, one line per update."""
    found = Table.grid(padding=(0, 2))
    for at, update in list(tally.journal):
        found.add_row(
            f"+{at - tally.journal[0][0]:.3f} s",
            str(update.sequence),
            update.event_type.rpartition(".")[2],
            status_name(update.status),
        )
    return found
