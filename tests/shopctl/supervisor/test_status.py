"""The table of processes."""

from dataclasses import replace

import pytest

from shopctl.supervisor import status
from shopctl.supervisor.health import State

ROWS = [
    status.Row("supervisor", "", State.SERVING, 1, 3.0, 0, 20 * 2**20),
    status.Row("orders", "127.0.0.1:9051", State.NOT_SERVING, 2, 62.0, 3, 30 * 2**20),
    status.Row("payments", "127.0.0.1:9052", State.SERVING, None, None, 0, None, managed=False),
]


def test_text() -> None:
    """One line per process with everything about it, and the total."""
    text = status.table(ROWS, colour=False, width=100)
    assert [line.split() for line in text.splitlines()] == [
        ["SERVICE", "ADDRESS", "STATE", "PID", "UPTIME", "RESTARTS", "MEMORY"],
        ["supervisor", "-", "serving", "1", "3s", "0", "20.0", "MiB"],
        ["orders", "127.0.0.1:9051", "not", "serving", "2", "1m02s", "3", "30.0", "MiB"],
        ["payments", "127.0.0.1:9052", "serving", "(not", "ours)", "-", "-", "-", "-"],
        ["total", "50.0", "MiB"],
    ]


def test_colour_only_when_asked() -> None:
    """States are coloured on request and only then."""
    assert "\x1b[31mnot serving" in status.table(ROWS, colour=True, width=100)
    assert "\x1b" not in status.table(ROWS, colour=False, width=100)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-0.5, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (90000, "1d01h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    """Durations are short: the two largest units."""
    assert status.duration(seconds) == text


def test_reasons_follow_the_table() -> None:
    """Why something does not serve stands below, in full."""
    text = status.table([replace(ROWS[1], reason="no space left")], colour=False, width=100)
    assert text.splitlines()[-1] == "orders: no space left"
