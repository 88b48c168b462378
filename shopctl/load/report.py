"""The result of a run for people, and for programs."""

from typing import Any, Final

from shopctl.formatting import Columns
from shopctl.load.result import LATE, OK, Outcome, Result
from shopctl.load.runner import Runner

COLUMNS: Final = Columns(
    CALL=6, ENDED=-8, OK=-8, P50=-9, P90=-9, P99=-9, **{"P99.9": -9}, MAX=-9, OTHERS=0
)
"""Of the table; latencies are milliseconds."""


def progress(runner: Runner, seconds: float) -> str:
    """How far a run is, in one line."""
    result = runner.result
    total = result.total()
    failed = total.codes.total() - total.codes[OK]
    return (
        f"{seconds:.0f} s  {result.sent} sent  {total.codes[OK]} ok  {failed} failed  "
        f"{runner.open} open  {result.dropped} dropped  p99 {total.milliseconds()['p99']:.1f} ms"
    )


def lines(result: Result, most: int) -> list[str]:
    """A table, and what it would not show."""
    rows = {**result.kinds, "all": result.total()}
    found = [COLUMNS.heading, *(_row(name, outcome) for name, outcome in rows.items())]
    early = ", ended early" if result.interrupted else ""
    found.append(f"{result.sent} calls in {result.seconds:.1f} s{early}; latencies in ms")
    if result.dropped:
        found.append(
            f"{result.dropped} calls dropped: {most} were open, which is the bound (--most)"
        )
    if result.late:
        found.append(
            f"{result.late} calls made more than {LATE * 1e3:.0f} ms late, by"
            f" {result.worst * 1e3:.0f} ms at worst: this process or its machine does not keep up"
        )
    return found


def as_json(result: Result, rate: float) -> dict[str, Any]:
    """All of it, JSON-ready."""
    return {
        "rate": rate,
        "seconds": round(result.seconds, 3),
        "sent": result.sent,
        "dropped": result.dropped,
        "late": result.late,
        "worst_late_ms": round(result.worst * 1e3, 3),
        "interrupted": result.interrupted,
        **_numbers(result.total()),
        "calls": {kind: _numbers(outcome) for kind, outcome in result.kinds.items()},
    }


def _numbers(outcome: Outcome) -> dict[str, Any]:
    return {
        "ok": outcome.codes[OK],
        "codes": dict(outcome.codes),
        "latency_ms": dict(outcome.milliseconds()),
    }


def _row(name: str, outcome: Outcome) -> str:
    others = (f"{code} {count}" for code, count in outcome.codes.items() if code != OK)
    times = (f"{value:.1f}" for value in outcome.milliseconds().values())
    sent, ok = str(outcome.codes.total()), str(outcome.codes[OK])
    return COLUMNS.line(name, sent, ok, *times, "  ".join(others))
