"""The log of refusals: as little as it may say, and nothing lost."""

import logging

import pytest

from accord.server.refusal_log import MAX_LINES, RefusalLog, allowed
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Who was named, and how often it was refused; forgotten by this."""
    found = [(vars(record)["caller"], vars(record)["times"]) for record in caplog.records]
    caplog.clear()
    return found


def test_one_line_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that is refused again and again has a line a minute, with how often it was."""
    log = RefusalLog(clock)
    for _ in range(100):
        log.note("a", "/p.S/M", "NOT_ALLOWED")
    assert said(caplog) == [("a", 1)]
    log.note("a", "/p.S/Other", "NOT_ALLOWED")
    assert said(caplog) == [("a", 1)]
    clock.advance(60)
    log.note("a", "/p.S/M", "NOT_ALLOWED")
    assert said(caplog) == [("a", 100)]


def test_bounded(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """However many callers there are, lines and memory are bounded, and all refusals counted."""
    caplog.set_level(logging.WARNING)
    log = RefusalLog(clock)
    for number in range(5 * MAX_LINES):
        log.note(str(number), "/p.S/M", "NOT_ALLOWED")
        log.note(str(number), "/p.S/M", "NOT_ALLOWED")
    assert len(caplog.records) == MAX_LINES + 1
    assert len(log._lines) <= MAX_LINES + 1
    counted = sum(times for _, times in said(caplog))
    clock.advance(60)
    log.note("last", "/p.S/M", "NOT_ALLOWED")
    assert counted + sum(times for _, times in said(caplog)) == 10 * MAX_LINES + 1


@pytest.mark.parametrize(("level", "lines"), [(logging.DEBUG, 1), (logging.INFO, 0)])
def test_what_is_allowed_is_said_to_who_looks_closely(
    caplog: pytest.LogCaptureFixture, level: int, lines: int
) -> None:
    """A call that is allowed is a line at debug, and none else."""
    caplog.set_level(level, "accord")
    allowed("a", "/p.S/M")
    assert len(caplog.records) == lines
