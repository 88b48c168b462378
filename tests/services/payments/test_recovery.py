"""What a killed payments process leaves open is finished, and never done twice."""

import asyncio
from functools import partial
from pathlib import Path

import grpc
import pytest

from accord_runtime.grpc.ids import uuid7
from shop.payments.v1 import payments_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.services.payments.client import TAKEN, TAKEN_AND_BACK, calling
from tests.services.sandbox.world import eventually, running_process, running_world

CARDS = outside.PARTY_CARD_PROCESSOR


async def test_a_refund_is_finished_after_a_kill(tmp_path: Path) -> None:
    """A decided refund is finished at the next start, without anybody asking for it."""
    order = uuid7()
    async with running_world(tmp_path) as (shop, world), calling(shop.offset) as payments:
        async with running_process("payments", tmp_path, shop.offset) as process:
            await payments.charge(order)
            await world.behave(CARDS, outside.BEHAVIOR_FAIL, calls=0)
            with pytest.raises(grpc.aio.AioRpcError):
                await payments.refund(order)
            assert await payments.state(order) == pb.PAYMENT_STATE_REFUNDING
            process.kill()
        await world.behave(CARDS, outside.BEHAVIOR_NORMAL)
        assert await world.kinds(order) == TAKEN
        async with running_process("payments", tmp_path, shop.offset):
            await eventually(partial(payments.is_refunded, order))
        assert await world.kinds(order) == TAKEN_AND_BACK


async def test_a_charge_is_finished_by_its_repeat_after_a_kill(tmp_path: Path) -> None:
    """Killed between the capture and its record, the repeat learns of the capture."""
    order = uuid7()
    async with running_world(tmp_path) as (shop, world), calling(shop.offset) as payments:
        async with running_process("payments", tmp_path, shop.offset) as process:
            await world.behave(CARDS, outside.BEHAVIOR_DELAY, delay=0.5)
            charge = asyncio.create_task(payments.charge(order))
            await eventually(partial(payments.is_pending, order))
            process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await charge
        async with running_process("payments", tmp_path, shop.offset):
            await eventually(partial(payments.is_charged, order))
        assert await world.kinds(order) == TAKEN
