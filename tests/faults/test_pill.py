"""Work that kills its process."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.scale import SECONDS

PILL: Final = Path(__file__).with_name("pill")
GOOD: Final = 20


@pytest.mark.slow
async def test_a_mail_that_kills_who_sends_it(fault: Fault) -> None:
    """Whatever is behind it is sent, and it alone is parked, after five deaths of its process."""
    path = os.pathsep.join([str(PILL), os.environ.get("PYTHONPATH", "")])
    async with fault(
        "a mail that kills its sender", GOOD + 1, environment={"PYTHONPATH": path}, email="pill"
    ) as scene:
        pills = scene.orders.by_the_first_customer()
        assert pills == [1]
        scene.watch.began()
        await scene.orders.place(GOOD + 1)
        scene.watch.over()
        await scene.orders.settled(SECONDS, pills)
        scene.watch.right()
        await scene.orders.check(pills)

        assert scene.shop.restarts("notifications") >= 5 * len(pills)
        for row in await scene.shop.listed("work", "list", "--state", "parked"):
            assert (row["service"], row["queue"]) == ("notifications", "mail")
            assert "process died" in row["last_error"]
    assert scene.watch.told("status", "notifications") is not None
