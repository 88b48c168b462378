"""What a killed shipping process leaves open is finished."""

from functools import partial
from pathlib import Path

from accord_runtime.grpc.ids import uuid7
from shop.sandbox.v1 import sandbox_pb2 as outside
from shop.shipping.v1 import shipping_pb2 as pb
from tests.services.sandbox.world import UNAVAILABLE, eventually, running_process, running_world
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
