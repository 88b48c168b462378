"""The outcome of a replay for people, and for programs."""

import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from shopctl.replay.progress import Tally
from shopctl.replay.reconcile import Unit, Verdict
from shopctl.replay.session import Result, Settings

MAX_DIFFERENCES = 50
"""Rows that are printed; JSON has all of them."""


def console() -> Console:
    """Where results are printed; wide enough for a table when nobody tells how wide."""
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def amount(value: int, unit: Unit) -> str:
    """A number for people: `1,234.56` for 123456 cents, `1,234` for anything else."""
    if unit is not Unit.CENTS:
        return f"{value:,}"
    dollars, cents = divmod(abs(value), 100)
    return f"{'-' if value < 0 else ''}{dollars:,}.{cents:02}"


def table(verdict: Verdict) -> RenderableType:
    """The reconciliation, and the rows that differ."""
    checks = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("BOOK", "WHAT", "BY SQL", "IN THE BOOK", "UNIT", ""):
        number = heading in ("BY SQL", "IN THE BOOK")
        checks.add_column(heading, justify="right" if number else "left", no_wrap=True)
    previous = ""
    for check in verdict.checks:
        checks.add_row(
            check.book if check.book != previous else "",
            check.what,
            amount(check.expected, check.unit),
            amount(check.actual, check.unit),
            "USD" if check.unit is Unit.CENTS else check.unit,
            Text("agrees", "green") if check.agrees else Text("DIFFERS", "bold red"),
        )
        previous = check.book
    if not verdict.differences:
        return checks
    rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("WHAT DIFFERS", "BOOK", "", "MUST BE", "IS"):
        rows.add_column(heading, overflow="fold")
    for row in verdict.differences[:MAX_DIFFERENCES]:
        rows.add_row(row.subject, row.book, row.what, row.expected, row.actual)
    more = len(verdict.differences) - MAX_DIFFERENCES
    return Group(checks, "", rows, *([f"... and {more} more"] if more > 0 else []))


def summary(settings: Settings, result: Result, tally: Tally) -> str:
    """One line about the run."""
    rate = settings.orders / result.seconds if result.seconds else 0.0
    retries = sum(tally.retries.values())
    verdict = "all books agree" if result.verdict.agrees else "THE BOOKS DO NOT AGREE"
    return (
        f"{verdict}: {settings.orders} orders in {result.seconds:.1f} s "
        f"({rate:.0f} per second), "
        f"{retries} calls repeated, run {result.run}, seed {settings.seed}, {settings.fulfilment}"
    )


def as_json(settings: Settings, result: Result, tally: Tally) -> dict[str, Any]:
    """All of it, JSON-ready. Money is in US cents."""
    return {
        "agrees": result.verdict.agrees,
        "run": result.run,
        "seed": settings.seed,
        "scale_factor": settings.scale_factor,
        "orders": settings.orders,
        "fulfilment": settings.fulfilment,
        "concurrency": settings.concurrency,
        "seconds": round(result.seconds, 3),
        "retries": dict(tally.retries),
        "checks": [{**asdict(check), "agrees": check.agrees} for check in result.verdict.checks],
        "differences": [asdict(row) for row in result.verdict.differences],
    }
