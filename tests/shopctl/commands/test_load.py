"""`shopctl load` over the shop."""

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from shopctl.errors import ExitCode
from tests.shopctl.support.shop import SHOPCTL, Shop
from tests.support.wait import DEADLINE

pytestmark = pytest.mark.slow


def measured(shop: Shop, *arguments: str) -> dict[str, Any]:
    done = shop.run("load", "--json", *arguments)
    assert done.returncode == ExitCode.OK, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_measures_a_shop_that_was_empty(real_shop: Shop) -> None:
    """It makes what it needs, makes as many calls as it was told to, and all are answered."""
    found = measured(real_shop, "--rate", "20", "--for", "3s")
    assert (found["sent"], found["dropped"], found["interrupted"]) == (60, 0, False)
    assert found["codes"] == {"OK": 60}
    assert set(found["calls"]) == {"place", "get", "stock", "watch"}
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"]
    assert latency["p99.9"] <= latency["max"] < 60_000
    assert 2.5 < found["seconds"] < 20

    listed = real_shop.run("order", "list", "--json").stdout.splitlines()
    assert len(listed) == found["calls"]["place"]["ok"] + 1  # and the first, to begin with
    before = real_shop.run("customer", "list", "--json").stdout
    measured(real_shop, "--rate", "5", "--for", "1s")
    assert real_shop.run("customer", "list", "--json").stdout == before


def test_the_edge_is_called_as_its_customers(real_shop: Shop) -> None:
    """Through the edge all calls are answered, too, each by a token of whom it is for."""
    found = measured(real_shop, "--rate", "10", "--for", "3s", "--through", "edge")
    assert (found["through"], found["sent"], found["codes"]) == ("edge", 30, {"OK": 30})
    assert all(each["ok"] for each in found["calls"].values())


def test_a_table_for_people(real_shop: Shop) -> None:
    """One row for each kind of call and one for all, and what was dropped."""
    done = real_shop.run("load", "--rate", "500", "--for", "1s", "--most", "1")
    assert done.returncode == ExitCode.OK, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split()[:3] == ["CALL", "ENDED", "OK"]
    assert [row.split()[0] for row in rows[1:6]] == ["place", "get", "stock", "watch", "all"]
    assert "calls dropped" in done.stdout


def test_ctrl_c_ends_it_with_the_summary(real_shop: Shop) -> None:
    """It is no error to have seen enough."""
    process = subprocess.Popen(
        [*SHOPCTL, "load", "--rate", "10", "--for", "10m", "--json"],
        cwd=real_shop.folder,
        env=real_shop.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    before = len(real_shop.run("order", "list", "--json").stdout.splitlines())
    deadline = time.monotonic() + DEADLINE
    while len(real_shop.run("order", "list", "--json").stdout.splitlines()) == before:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.OK
    found = json.loads(output)
    assert found["interrupted"]
    assert found["sent"] == found["ok"] > 0


def test_without_a_shop() -> None:
    """It says so, as every command does."""
    done = subprocess.run(
        [*SHOPCTL, "load", "--home", "/nonexistent"], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.NOT_RUNNING
    assert "start the shop" in done.stderr
