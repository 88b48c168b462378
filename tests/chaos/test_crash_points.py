"""A process dies at every point of an order's way, one after the other: nothing is lost or doubled.

Every commit, publication, call, acknowledgement and mail is a point before it and one after it, by
name and by the number of times that it was passed. A first order of each flow enumerates them. Then
for each of them an order is placed, its process is killed exactly there, the supervisor starts it
again, and all books must agree. CI has time for a share of them, drawn by a seed that it prints.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest

from tests.chaos.crash_points import FLOWS, PRICE, QUIET, Caller, Point, Points
from tests.chaos.scale import FULL
from tests.support.mesh_process import running_mesh
from tests.support.ports import free_offset
from tests.support.postgres import running_postgres

SHARE_SECONDS: Final = 20.0
"""How long CI kills."""
SEED: Final = int(os.environ.get("CRASH_SEED") or time.time() // 3600)
"""Another share of the points each hour."""
ONLY: Final = os.environ.get("CRASH_ONLY", "")
"""Part of the names of the points to kill at, as they are printed; by default all."""
ON_HAND: Final = 100_000

KILLED: Final = "killed, and right"
NOT_PASSED: Final = "not passed again"


@pytest.fixture(params=["sqlite", "postgresql"] if FULL else ["sqlite"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A file per service, or one server for all."""
    if request.param == "sqlite":
        yield None
    else:
        with running_postgres() as url:
            yield url


@pytest.mark.slow
async def test_a_death_at_every_point(database_url: str | None, tmp_path: Path) -> None:
    """Whoever dies wherever: the order ends as it would have, once, in everybody's books."""
    points = Points(tmp_path / "points")
    with running_mesh(
        tmp_path / "mesh", free_offset(), database_url, environment=points.environment
    ) as mesh:
        caller = Caller(mesh)
        try:
            caller.customer_id = await caller.customer()
            await caller.product("tea", PRICE, on_hand=ON_HAND)
            found = await enumerated(caller, points)
            outcomes = await killed(caller, points, found)
            wrong = [outcome for outcome in outcomes if outcome not in (KILLED, NOT_PASSED)]
            if not wrong:
                await caller.check_all(ON_HAND, caller.confirmed)
        except BaseException:
            print(mesh.logs())
            raise
        finally:
            await caller.close()
    total = Counter(flow for flow, _ in found)
    print(f"\n{len(found)} points ({dict(total)}), CRASH_SEED={SEED}: {dict(Counter(outcomes))}")
    assert not wrong, "\n".join(wrong)
    assert KILLED in outcomes


async def one(caller: Caller, flow: str, points: Points) -> None:
    """An order of a flow goes all of its way, whoever dies, and is right in the end."""
    order_id = await FLOWS[flow].go(caller)
    seen = await caller.gone(order_id)
    await caller.idle()
    if not points.fired():
        await caller.quiet(QUIET)
    points.disarm()
    # What the next life does again it has done when it serves and has no work.
    await caller.serving()
    await caller.idle()
    await caller.check(order_id, seen, FLOWS[flow].ends)


async def enumerated(caller: Caller, points: Points) -> list[tuple[str, Point]]:
    """All points of each flow; the first order of a process is not counted, nor is its start."""
    found = []
    for flow in FLOWS:
        await one(caller, flow, points)
        points.record()
        await one(caller, flow, points)
        found += [(flow, point) for point in points.recorded()]
    return found


async def killed(caller: Caller, points: Points, found: list[tuple[str, Point]]) -> list[str]:
    """Kill at these, as far as there is time; returns what became of each."""
    deadline = time.monotonic() + SHARE_SECONDS
    outcomes = []
    for flow, point in random.Random(SEED).sample(found, len(found)):
        if not FULL and time.monotonic() > deadline:
            break
        if ONLY not in f"{flow}, {point}":
            continue
        began = time.monotonic()
        points.arm(point)
        try:
            await one(caller, flow, points)
            outcomes.append(KILLED if points.fired() else NOT_PASSED)
        except (AssertionError, grpc.RpcError) as error:
            points.disarm()
            outcomes.append(f"{flow}, {point}: {error}")
        print(f"{time.monotonic() - began:4.1f} s  {flow}, {point}: {outcomes[-1]}", flush=True)
    return outcomes
