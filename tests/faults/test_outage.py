"""A service that is away for so long that work is parked."""

import asyncio
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.scale import FULL, SECONDS

AWAY: Final = "payments"
LASTS: Final = 600.0 if FULL else 20.0
ORDERS: Final = 1000 if FULL else 30
MANY: Final = "10000"
WAITING: Final = "parked" if FULL else "ready"
"""A short outage parks nothing: then it is the waiting for the next attempt that ends."""


@pytest.mark.full
@pytest.mark.slow
async def test_a_long_outage(fault: Fault) -> None:
    """What was parked ends well after one command, and nothing has happened twice."""
    async with fault("an outage of payments", ORDERS, by_hand=[AWAY]) as scene:
        part = scene.shop.parts[AWAY]
        part.kill()
        scene.watch.began()
        await scene.orders.place(ORDERS, LASTS / 4)
        await asyncio.sleep(max(0.0, LASTS - scene.watch.now()))
        if FULL:
            parked = (
                "work",
                "list",
                "--service",
                "orders",
                "--state",
                "parked",
                "--limit",
                "10000",
            )
            assert len(await scene.shop.listed(*parked)) >= ORDERS // 2
        await part.start()
        scene.watch.over()

        reason = ("--reason", "payments is back")
        await scene.shop.listed(
            "saga", "retry", "--state", WAITING, "--rate", "50", "--go", *reason
        )
        await scene.orders.settled(4 * SECONDS)
        scene.watch.right()
        await scene.orders.check()
    told = scene.watch.told("status", AWAY)
    assert told is not None
