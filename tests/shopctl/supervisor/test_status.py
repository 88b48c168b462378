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
        ["payments", "127.0.0.1:9052", "serving", "-", "-", "not", "ours", "-"],
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
        (100 * 86400 - 1, "99d23h"),
        (1000 * 86400, "1000d"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    """Durations are short: the two largest units."""
    assert status.duration(seconds) == text


def test_reasons_follow_the_table() -> None:
    """Why something does not serve stands below, in full."""
    text = status.table([replace(ROWS[1], reason="no space left")], colour=False, width=100)
    assert text.splitlines()[-1] == "orders: no space left"


LONG = [
    status.Row("supervisor", "", State.SERVING, 4194304, 9e6, 0, 20 * 2**20),
    status.Row("notifications", "127.0.0.1:9955", State.NOT_SERVING, 4194303, 8.6e6, 99999, 2**36),
    status.Row("payments", "127.0.0.1:9952", State.UNREACHABLE, None, None, 0, None, managed=False),
]


@pytest.mark.parametrize("address", ["127.0.0.1:9951", "orders.shop.svc.cluster.example:10051"])
def test_it_fits_a_terminal_of_80_columns(address: str) -> None:
    """With the longest names and numbers no line is longer, and nothing of it is lost."""
    reason = "12 events wait for the broker, the oldest for 34 s: " + "nats: timeout, " * 9 + "away"
    orders = status.Row("orders", address, State.RESTARTING, 7, 1.0, 1, 2**30, reason=reason)
    text = status.table([*LONG, orders], colour=False, width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for row in (*LONG, orders):
        (line,) = (line for line in lines if line.startswith(f"{row.name} "))
        said = (row.state, status.duration(row.uptime), status.mebibytes(row.memory))
        assert all(cell in line for cell in said), line
    assert " ".join(text[text.index("orders: ") :].split()) == f"orders: {reason}"
    start, end = lines[0].index("ADDRESS"), lines[0].index("STATE")
    assert address in "".join(line[start:end].strip() for line in lines)
