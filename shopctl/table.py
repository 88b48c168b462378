"""The table of processes that `up` and `status` print."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO

from rich.console import Console
from rich.table import Table

from shopctl.health import State

STYLES = {
    State.SERVING: "green",
    State.STARTING: "yellow",
    State.RESTARTING: "yellow",
    State.NOT_SERVING: "red",
    State.UNREACHABLE: "red",
    State.STOPPED: "red",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One process.

    Attributes:
        name: the program.
        address: `host:port`; empty for the supervisor.
        state: see `State`.
        pid: None while it does not run or is not ours.
        uptime: seconds since its latest start.
        restarts: how often it was started again.
        memory: PSS in bytes.
        managed: False when it was left out and is somebody else's.
    """

    name: str
    address: str
    state: State
    pid: int | None
    uptime: float | None
    restarts: int
    memory: int | None
    managed: bool = True


def total_memory(rows: Sequence[Row]) -> int:
    """Bytes of all rows together."""
    return sum(row.memory or 0 for row in rows)


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows as JSON-ready objects."""
    return [asdict(row) for row in rows]


def render(rows: Sequence[Row], *, colour: bool, width: int) -> str:
    """The table as text."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("SERVICE", "ADDRESS", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PID", "UPTIME", "RESTARTS", "MEMORY"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        state = f"[{STYLES[row.state]}]{row.state}[/]" + ("" if row.managed else " (not ours)")
        cells = (
            row.address or "-",
            state,
            str(row.pid or "-"),
            duration(row.uptime),
            str(row.restarts) if row.managed else "-",
            mebibytes(row.memory),
        )
        table.add_row(row.name, *cells)
    table.add_row("total", "", "", "", "", "", mebibytes(total_memory(rows)), style="bold")
    text = StringIO()
    Console(file=text, force_terminal=colour, no_color=not colour, width=width).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def duration(seconds: float | None) -> str:
    """`12s`, `3m04s`, `5h06m`, `7d08h`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    for unit, size, smaller, smaller_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller_size:02}{smaller}"
    return f"{whole}s"


def mebibytes(count: int | None) -> str:
    """Memory for a person."""
    return "-" if count is None else f"{count / 2**20:.1f} MiB"


def uptime(started: float | None) -> float | None:
    """Seconds since a Unix time, to a tenth."""
    return None if started is None else round(time.time() - started, 1)
