"""Prints, when the tests have ended, what each fault did and how long it took.

FAULTS_REPORT=FILE writes the same as JSON, with everything that was said meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

KEY: Final = "fault"
"""Name of the property in which a test reports."""

HEADINGS: Final = ("fault", "lasted", "recovered", "status", "health RPC", "/metrics")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table, if a test has reported."""
    found = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == KEY
    ]
    if not found:
        return
    terminalreporter.section("faults")
    rows = [HEADINGS, *map(row, found)]
    widths = [max(len(each[column]) for each in rows) for column in range(len(HEADINGS) - 1)]
    for each in rows:
        cells = [cell.ljust(width) for cell, width in zip(each, widths, strict=False)]
        terminalreporter.write_line("  ".join([*cells, each[-1]]).rstrip())
    if path := os.environ.get("FAULTS_REPORT"):
        Path(path).write_text(json.dumps(found, indent=2) + "\n")


def row(fault: dict[str, Any]) -> tuple[str, ...]:
    """A fault as cells of the table."""
    return (
        fault["name"],
        _seconds(fault["lasted"]),
        _seconds(fault["recovered"]),
        *(", ".join(_changes(fault, voice)) or "well" for voice in ("status", "health", "metrics")),
    )


def _changes(fault: dict[str, Any], voice: str) -> Iterator[str]:
    """Who was said not to be well: after so long, and for how much longer than the cause."""
    for one in fault["told"]:
        if one["voice"] == voice:
            end = "for good" if one["well_again"] is None else f"+{one['well_again']:g}"
            yield f"{one['name']} {one['told']:g} to {end}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s" if value else "at once"
