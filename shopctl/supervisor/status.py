"""How every process of a running shop is, and the table of it that `up` and `status` print."""

import asyncio
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from shopctl.supervisor.health import Answer, State, check_of, proportional_bytes
from shopctl.supervisor.state import ProcessRecord, Run
from shopctl.terminal import as_text, harmless

CHECK_TIMEOUT: Final = 2.0

STYLES: Final = {
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
        address: `host:port`; empty for the supervisor and the fork server.
        state: see `State`.
        pid: None while it does not run or is not ours.
        uptime: seconds since its latest start, to a tenth.
        restarts: how often it was started again.
        memory: PSS in bytes.
        managed: False when it was left out and is somebody else's.
        reason: what is wrong with it, as far as it says.
        waiting: events of it that the broker has not acknowledged.
    """

    name: str
    address: str
    state: State
    pid: int | None
    uptime: float | None
    restarts: int
    memory: int | None
    managed: bool = True
    reason: str = ""
    waiting: int = 0


async def survey(run: Run, home: Path) -> list[Row]:
    """One row per process, our own first. Takes 2 x `CHECK_TIMEOUT` seconds at most."""
    secure = None if run.insecure else home
    whole = all(process.managed for process in run.processes)
    states = await asyncio.gather(*(_state(each, secure, whole) for each in run.processes))
    own = [
        ProcessRecord(name, "", pid, State.SERVING, 0, run.started)
        for name, pid in (("supervisor", run.pid), ("fork server", run.forks))
        if pid is not None
    ]
    rows = [_row(each, Answer(State.SERVING)) for each in own]
    return rows + list(map(_row, run.processes, states))


async def _state(process: ProcessRecord, home: Path | None, whole: bool) -> Answer:
    if process.managed and process.pid is None:
        return Answer(State(process.state), process.reason)  # who answers at that address is not it
    check = check_of(process.name, home, whole=whole)
    answer = await check(process.address, CHECK_TIMEOUT)
    still_starting = process.state == State.STARTING and answer.state is State.UNREACHABLE
    return Answer(State.STARTING) if still_starting else answer


def _row(process: ProcessRecord, answer: Answer) -> Row:
    started = process.started if process.pid else None
    return Row(
        name=process.name,
        address=process.address,
        state=answer.state,
        pid=process.pid,
        uptime=None if started is None else round(time.time() - started, 1),
        restarts=process.restarts,
        memory=proportional_bytes(process.pid) if process.pid else None,
        managed=process.managed,
        reason=answer.reason,
        waiting=answer.waiting,
    )


def total_memory(rows: Sequence[Row]) -> int:
    """Bytes of all rows together."""
    return sum(row.memory or 0 for row in rows)


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows as JSON-ready objects."""
    return [asdict(row) for row in rows]


def table(rows: Sequence[Row], *, colour: bool, width: int) -> str:
    """The rows for people."""
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    found.add_column("SERVICE", no_wrap=True)
    found.add_column("ADDRESS", overflow="fold")  # the only one that gives way
    found.add_column("STATE", no_wrap=True)
    for heading in ("PID", "UPTIME", "RESTARTS", "MEMORY"):
        found.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = (
            row.address or "-",
            f"[{STYLES[row.state]}]{row.state}[/]",
            str(row.pid or "-"),
            duration(row.uptime),
            str(row.restarts) if row.managed else "not ours",
            mebibytes(row.memory),
        )
        found.add_row(row.name, *cells)
    found.add_row("total", "", "", "", "", "", mebibytes(total_memory(rows)), style="bold")
    reasons = [
        textwrap.fill(harmless(f"{row.name}: {row.reason}"), width, subsequent_indent="  ")
        for row in rows
        if row.reason
    ]
    return "\n".join([as_text(found, colour=colour, width=width), *reasons])


def duration(seconds: float | None) -> str:
    """`12s`, `3m04s`, `5h06m`, `7d08h`, `100d`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole >= 100 * 86400:
        return f"{whole // 86400}d"
    for unit, size, smaller, smaller_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller_size:02}{smaller}"
    return f"{whole}s"


def mebibytes(count: int | None) -> str:
    """Memory for a person: `12.3 MiB`, `1234 MiB`."""
    if count is None:
        return "-"
    return f"{count / 2**20:.{1 if count < 1000 * 2**20 else 0}f} MiB"
