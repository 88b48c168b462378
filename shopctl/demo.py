"""`shopctl demo`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, ShopOffsetOption
from shopctl.exit_codes import ExitCode
from shopctl.replay.command import running_offset

if TYPE_CHECKING:
    from rich.console import RenderableType

    from shopctl.replay.tally import Tally

CONCURRENCY = 4
CARD = "tok_slow"
"""A card that takes two seconds to be charged, so that there is something to see."""

DECLINED = SHORT = 10.0
SEED = 1
HEIGHT = 10


def demo(
    orders: Annotated[int, typer.Option("--orders", "-n", min=1, max=1000)] = 20,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
) -> None:
    """Place a few real orders beside a live watch of one of them, and reconcile the books.

    It is a small `shopctl replay`; exit codes are the same.
    """
    import sys

    from shopctl.common import is_terminal
    from shopctl.replay import display, report, session
    from shopctl.replay.tally import Tally

    settings = session.Settings(
        orders=orders,
        concurrency=CONCURRENCY,
        declined=DECLINED,
        short=SHORT,
        card=CARD,
        seed=SEED,
        timeout=120.0,
        scale_factor=0.01,
        offset=running_offset(home, offset),
    )
    tally = Tally(orders)
    console = display.console()
    people = is_terminal()
    with display.live(tally, two_panels) if people else display.lines(tally, sys.stderr):
        result = session.replay(settings, tally)
    if not people:
        console.print(watch(tally))
    console.print(report.table(result.verdict))
    console.print(report.summary(settings, result, tally))
    if not result.verdict.agrees:
        raise typer.Exit(ExitCode.FAILED)


def two_panels(tally: "Tally") -> "RenderableType":
    """The replay on the left, one order on the right."""
    from rich.panel import Panel
    from rich.table import Table

    from shopctl.replay import display

    both = Table.grid(expand=True)
    both.add_column(ratio=3)
    both.add_column(ratio=2)
    both.add_row(
        Panel(display.panel(tally), title="shopctl replay", height=HEIGHT),
        Panel(watch(tally), title="shopctl order watch", height=HEIGHT),
    )
    return both


def watch(tally: "Tally") -> "RenderableType":
    """The life of the order that is watched, one line per update."""
    from rich.table import Table

    from shopctl.replay.tally import status_name

    updates = Table.grid(padding=(0, 2))
    begun = tally.journal[0].at if tally.journal else 0.0
    for entry in list(tally.journal):
        updates.add_row(
            f"+{entry.at - begun:.3f} s",
            str(entry.update.sequence),
            entry.update.event_type.rpartition(".")[2],
            status_name(entry.update.status),
        )
    return updates
