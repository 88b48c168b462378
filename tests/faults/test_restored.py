"""What a consumer has received, or would have, is taken back: by a backup, or in the broker.

In each case customers are told all the same, once. Notifications is the consumer: it is down when
the events pass by, so that every mail depends on them.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import nats
import pytest
from nats.js import JetStreamContext

from accord import event_policy
from services import topology
from services.topology import BROKER
from shop.orders.v1.events_pb2 import OrderConfirmed
from shopctl.replay.model import Fate
from tests.faults.backups import backup, restore
from tests.faults.conftest import Fault, Scene
from tests.faults.processes import Shop
from tests.faults.scale import ORDERS, SECONDS
from tests.support.wait import until

STREAM: Final = "ORDERS"
CONSUMER: Final = "notifications"


class Jetstream:
    """The broker's streams, as an operator reaches them."""

    def __init__(self, shop: Shop) -> None:
        self._url = f"nats://{topology.address(BROKER, shop.offset)}"
        self._token = (shop.home / "nats.token").read_text().strip()

    async def __aenter__(self) -> JetStreamContext:
        self._client = await nats.connect(self._url, token=self._token)
        return self._client.jetstream()

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()


def keys_at_work(database: Path) -> int:
    """How many orders a service has work for."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        [(keys,)] = connection.execute("SELECT count(DISTINCT key) FROM work")
    return int(keys)


async def take_out(scene: Scene) -> None:
    """Delete from the broker's stream the one event that says how some order ended."""
    number = next(order.number for order in scene.orders.plan.orders if order.fate is Fate.GOOD)
    async with Jetstream(scene.shop) as jetstream:
        policy = event_policy(OrderConfirmed)
        assert policy is not None
        subject = f"{policy.subject}.{scene.orders.order_id(number)}"
        message = await jetstream.get_last_msg(STREAM, subject)
        assert message.seq is not None
        await jetstream.delete_msg(STREAM, message.seq)


async def published(scene: Scene) -> None:
    """Wait until the broker has every event there is."""
    with closing(sqlite3.connect(scene.shop.database("orders"))) as database:
        [(events,)] = database.execute("SELECT count(*) FROM events")
    async with Jetstream(scene.shop) as jetstream:

        async def there() -> bool:
            info = await jetstream.stream_info(STREAM)
            return bool(info.state.last_seq >= events)

        await until(there, "all events are published")


@pytest.mark.slow
async def test_a_consumer_restored_from_a_backup(fault: Fault, tmp_path: Path) -> None:
    """What it was about to send is not sent twice, what came after the backup is not missing."""
    async with fault("a consumer's database restored", 3 * ORDERS, by_hand=[CONSUMER]) as scene:
        shop, orders = scene.shop, scene.orders
        part, database = shop.parts[CONSUMER], shop.database(CONSUMER)
        part.kill()
        await orders.place(ORDERS)
        await orders.ended(SECONDS)
        await published(scene)
        with shop.frozen("customers"):  # nobody is told the addresses
            await part.start()
            await until(lambda: keys_at_work(database) == ORDERS, "all is received")
            backup(database, tmp_path / "copy")
        await orders.settled(SECONDS)
        await orders.place(ORDERS)
        await orders.settled(SECONDS)

        scene.watch.began()
        part.kill()
        restore(database, tmp_path / "copy")
        await part.start()
        scene.watch.over()

        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        scene.watch.right()
        await orders.check()


@pytest.mark.full
@pytest.mark.slow
async def test_a_stream_restored_from_yesterday(fault: Fault, tmp_path: Path) -> None:
    """A consumer that was down meanwhile gets every event of the record all the same."""
    async with fault("a stream restored", 3 * ORDERS, by_hand=[CONSUMER, BROKER]) as scene:
        shop, orders = scene.shop, scene.orders
        store, copy = shop.home / "nats" / "jetstream", tmp_path / "copy"
        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        shop.parts[BROKER].stop()
        shutil.copytree(store, copy)
        await shop.parts[BROKER].start()
        shop.parts[CONSUMER].kill()
        await orders.place(ORDERS)
        await orders.ended(SECONDS)
        await published(scene)

        scene.watch.began()
        shop.parts[BROKER].stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        await shop.parts[BROKER].start()
        await shop.parts[CONSUMER].start()
        scene.watch.over()

        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        scene.watch.right()
        await orders.check()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["purged", pytest.param("with a hole", marks=pytest.mark.full)])
async def test_a_stream_that_lost_events(fault: Fault, loss: str) -> None:
    """A consumer that was down meanwhile is told of them all the same, though nothing is amiss."""
    async with fault(f"a stream {loss}", 2 * ORDERS, by_hand=[CONSUMER]) as scene:
        shop, orders = scene.shop, scene.orders
        shop.parts[CONSUMER].kill()
        await orders.place(ORDERS)
        await orders.ended(SECONDS)
        await published(scene)

        scene.watch.began()
        if loss == "purged":
            async with Jetstream(shop) as jetstream:
                await jetstream.purge_stream(STREAM)
        else:
            await take_out(scene)
        await shop.parts[CONSUMER].start()
        scene.watch.over()

        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        scene.watch.right()
        await orders.check()
