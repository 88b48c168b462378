"""A clock that is set while orders are under way.

That of every Python process of the shop is set, libraries in C included, by `clock.c`; those of the
machine and of the broker are left alone.
"""

import shutil
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from shop.sandbox.v1 import sandbox_pb2 as pb
from tests.faults.conftest import Fault
from tests.faults.scale import ORDERS, SECONDS

SOURCE: Final = Path(__file__).with_name("clock.c")


class Clock:
    """How far the clock of some processes is ahead of the machine's."""

    def __init__(self, folder: Path) -> None:
        self._setting = folder / "clock"
        self._library = folder / "clock.so"
        self.set(0)
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        options = ["-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        done = subprocess.run([compiler, *options], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the library cannot be compiled here: {done.stderr.splitlines()[0]}")

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes."""
        return {"LD_PRELOAD": str(self._library), "MESH_FAULTS_CLOCK": str(self._setting)}

    def set(self, seconds: int) -> None:
        """Set it, in all of them at once."""
        with self._setting.open("r+b" if self._setting.exists() else "wb") as file:
            file.write(struct.pack("q", seconds * 10**9))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right."""
    return Clock(tmp_path)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("step", [3600, -3600, 10, -10])
async def test_a_clock_that_is_set(fault: Fault, clock: Clock, step: int) -> None:
    """Nothing waits for the old time, nothing is done twice, and every service says it."""
    name = f"clocks set by {step:+} s"
    async with fault(name, 3 * ORDERS, environment=clock.environment) as scene:
        orders = scene.orders
        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        # Most orders wait for their next attempt when the clock is set.
        carrier = partial(pb.SetBehaviorRequest, party=pb.PARTY_CARRIER)
        await orders.clients.sandbox.SetBehavior(carrier(behavior=pb.BEHAVIOR_FAIL))
        await orders.place(ORDERS, 2.0)

        scene.watch.began()
        clock.set(step)
        scene.watch.over()

        await orders.clients.sandbox.SetBehavior(carrier(behavior=pb.BEHAVIOR_NORMAL))
        await orders.place(ORDERS, 2.0)
        await orders.settled(SECONDS)
        scene.watch.right()
        await orders.check()
        for service in scene.shop.addresses():
            said = scene.shop.logged(service, "warning")
            assert any("the clock was set by" in line for line in said), service
