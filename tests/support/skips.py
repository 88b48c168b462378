"""Fails a run in which a test was skipped that `tests/skips.toml` does not name.

What is skipped is not tested, and nobody sees it. The same goes for what is expected to fail.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Final

import pytest

FILE: Final = Path(__file__).parents[1] / "skips.toml"


def listed() -> list[str]:
    """What may be skipped: files, tests, and cases of tests."""
    return [entry["test"] for entry in tomllib.loads(FILE.read_text())["skip"]]


def is_listed(test: str, names: Collection[str]) -> bool:
    """Whether a test, by its id, is named, or the test or the file that it belongs to."""
    return any(test == name or test.startswith((f"{name}::", f"{name}[")) for name in names)


class Skips:
    """What was skipped in this run, and must not be."""

    def __init__(self) -> None:
        self._names = listed()
        self._found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Looks at a test."""
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Looks at a file, which is skipped as a whole."""
        self._look(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fails the run."""
        if self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says why."""
        if self._found:
            terminalreporter.section("skipped, and not in tests/skips.toml")
        for test, reason in self._found.items():
            terminalreporter.write_line(f"{test}: {reason}")

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        expected = getattr(report, "wasxfail", None)
        if (report.skipped or expected is not None) and not is_listed(report.nodeid, self._names):
            where = report.longrepr
            reason = where[2] if isinstance(where, tuple) else f"expected to fail: {expected}"
            self._found[report.nodeid] = str(reason)


def pytest_configure(config: pytest.Config) -> None:
    """Watches this run; workers of xdist leave it to who started them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")
