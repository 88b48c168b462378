"""A process that is there and does nothing: SIGSTOP, and SIGCONT later."""

import asyncio
import dataclasses
import time
from typing import Final

import pytest

from services.topology import BROKER, HOST, SERVICES
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from tests.faults.conftest import Fault, Scene
from tests.faults.processes import Part
from tests.faults.scale import FULL, ORDERS, SECONDS
from tests.support.ports import free_port
from tests.support.postgres import running_postgres

LASTS: Final = 45.0 if FULL else 10.0
NAMES: Final = (BROKER, *SERVICES) if FULL else (BROKER, "payments")

NOTICED: Final = 6.0
"""Seconds after which the health RPC of a service fails; it has 2 s for an answer."""

SHOWN: Final = 15.0
"""Seconds after which the status command says it, which is slow itself on a busy machine."""

TAKEN_OVER: Final = 4.0
"""Seconds after which another replica goes on with a frozen one's events."""


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_a_frozen_process(fault: Fault, name: str) -> None:
    """Orders that come meanwhile end when it goes on, at the latest, and the status is right."""
    async with fault(f"{name} frozen", 3 * ORDERS) as scene:
        await scene.orders.place(ORDERS)
        await scene.orders.settled(SECONDS)
        await scene.orders.place(ORDERS)  # under way when it happens
        scene.watch.began()
        with scene.shop.frozen(name):
            await scene.orders.place(ORDERS, LASTS)
        scene.watch.over()
        await scene.orders.settled(SECONDS)
        scene.watch.right()
        await scene.orders.check()
    for voice, seconds in [("status", SHOWN), *([("health", NOTICED)] if name != BROKER else [])]:
        told = scene.watch.told(voice, name)
        assert told is not None, voice
        assert told <= seconds, voice


@pytest.mark.full
@pytest.mark.slow
async def test_a_frozen_holder_of_the_relay(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second replica on PostgreSQL events go on within 4 s, and mails with them."""
    address = f"{HOST}:{free_port()}"
    # Nobody calls the first one: it is the relay that is looked at.
    targets = {"MESH_TARGETS": f"orders={address}"}
    monkeypatch.setenv("MESH_TARGETS", targets["MESH_TARGETS"])
    with running_postgres() as url:
        async with fault(
            "the relay's holder frozen",
            3 * ORDERS,
            database_url=url,
            environment=targets,
            others={"orders-2": address},
        ) as scene:
            second = Part(
                dataclasses.replace(
                    scene.shop.programs["orders"],
                    env={**scene.shop.programs["orders"].env, "MESH_LISTEN": address},
                    address=address,
                ),
                scene.shop.home / "logs" / "orders-2.log",
            )
            try:
                await second.start()
                await scene.orders.place(ORDERS)
                await scene.orders.settled(SECONDS)
                heard = asyncio.create_task(next_event(scene, await head(scene)))

                scene.watch.began()
                with scene.shop.frozen("orders"):
                    frozen = time.monotonic()
                    await scene.orders.place(ORDERS, 2.0)
                    assert await heard - frozen <= TAKEN_OVER
                    await scene.orders.ended(SECONDS)
                    await scene.orders.told(SECONDS)
                scene.watch.over()

                await scene.orders.place(ORDERS)
                await scene.orders.settled(SECONDS)
                scene.watch.right()
                await scene.orders.check()
            finally:
                second.kill()


async def head(scene: Scene) -> int:
    """The position of the last event of the orders."""
    stream = scene.orders.clients.orders.ReadEvents(ReadEventsRequest())
    return max([each.position async for each in stream])


async def next_event(scene: Scene, position: int) -> float:
    """When the first event after a position came, by the monotonic clock."""
    request = ReadEventsRequest(after_position=position, follow=True)
    async for _ in scene.orders.clients.orders.ReadEvents(request):
        return time.monotonic()
    raise AssertionError("the stream has ended")
