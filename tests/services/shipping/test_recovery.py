"""What a killed shipping process leaves open is finished; what its database lost is undone."""

from functools import partial
from pathlib import Path

import pytest

from accord_runtime.grpc.ids import uuid7
from shop.sandbox.v1 import sandbox_pb2 as outside
from shop.shipping.v1 import shipping_pb2 as pb
from tests.faults.backups import Backup
from tests.services.orders.conftest import new_database
from tests.services.sandbox.world import (
    UNAVAILABLE,
    eventually,
    refused,
    running_process,
    running_world,
)
from tests.services.shipping.client import BOOKED, BOOKED_AND_CANCELLED, calling

CARRIER = outside.PARTY_CARRIER


async def test_a_cancellation_is_finished_after_a_kill(tmp_path: Path) -> None:
    """A decided cancellation is finished at the next start, without anybody asking for it."""
    order = uuid7()
    async with running_world(tmp_path) as (shop, world), calling(shop.offset) as shipping:
        async with running_process("shipping", tmp_path, shop.offset) as process:
            await shipping.create(order)
            await world.behave(CARRIER, outside.BEHAVIOR_FAIL, calls=0)
            assert await shipping.cancel_refusal(order) == UNAVAILABLE
            assert await shipping.state(order) == pb.SHIPMENT_STATE_CANCELLING
            process.kill()
        await world.behave(CARRIER, outside.BEHAVIOR_NORMAL)
        assert await world.kinds(order) == BOOKED
        async with running_process("shipping", tmp_path, shop.offset):
            await eventually(partial(shipping.is_cancelled, order))
        assert await world.kinds(order) == BOOKED_AND_CANCELLED


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_a_parcel_that_a_restored_database_has_lost_is_cancelled(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    """The carrier is asked by the id that follows from the order, once, and lets it not return."""
    order = uuid7()
    url = ""
    if backend == "postgres":
        url = new_database(request.getfixturevalue("postgres_url"))
    async with running_world(tmp_path) as (shop, world), calling(shop.offset) as shipping:
        start = partial(running_process, "shipping", tmp_path, shop.offset, database_url=url)
        async with start() as process:
            copy = Backup(tmp_path, "shipping", url)
            await shipping.create(order)
            process.kill()
            await process.wait()
        copy.put_back()
        async with start():
            assert await shipping.cancel(order) == await shipping.cancel(order)
            assert await shipping.is_cancelled(order)
            assert await shipping.refusal(order) == refused("SHIPMENT_CANCELLED")
        assert await world.kinds(order) == BOOKED_AND_CANCELLED
