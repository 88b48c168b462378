"""A full disk."""

import asyncio
import subprocess
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.scale import FULL, ORDERS, SECONDS
from tests.support.small_disk import SmallDisk

SIZE: Final = "size=256m" if FULL else "size=128m"
"""What the shop takes before the disk is filled: databases, their logs, and streams."""

LASTS: Final = 30.0 if FULL else 8.0


@pytest.mark.slow
async def test_a_disk_that_is_full(fault: Fault, small_disk: SmallDisk) -> None:
    """Broker and services come right by themselves when there is room again."""
    larger = ["mount", "-o", f"remount,{SIZE}", str(small_disk.folder)]
    subprocess.run(larger, check=True)  # noqa: ASYNC221 - nothing runs yet
    async with fault("disk full", 4 * ORDERS, home=small_disk.folder) as scene:
        orders = scene.orders
        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        await orders.place(ORDERS)  # under way when it happens

        scene.watch.began()
        await asyncio.gather(
            asyncio.to_thread(small_disk.fill_for, LASTS), orders.place(ORDERS, LASTS)
        )
        small_disk.free()
        scene.watch.over()

        await orders.place(ORDERS, 1.0)
        await orders.settled(SECONDS)
        scene.watch.right()
        await orders.check()
    # Who cannot commit depends on what has room left in its files; broker and orders may have.
    said = [scene.watch.told("health", name) for name in scene.shop.addresses()]
    assert any(after is not None for after in said), "all said that they serve"
