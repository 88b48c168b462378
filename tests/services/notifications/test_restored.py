"""A database of notifications that is restored from a copy: one mail for every outcome."""

import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import nats
import pytest

from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime
from services.customers.servicer import SERVICE as CUSTOMERS
from services.notifications.servicer import SERVICE
from services.orders.servicer import SERVICE as ORDERS
from shop.customers.v1.customers_pb2 import Customer
from tests.services.notifications.mailbox import Mailbox
from tests.services.notifications.serving import serving
from tests.services.notifications.test_service import confirmed, publish
from tests.support.nats import NatsServer, nats_server
from tests.support.ports import free_port
from tests.support.wait import until


@pytest.fixture
async def broker() -> AsyncIterator[NatsServer]:
    async with nats_server() as server:
        yield server


@asynccontextmanager
async def orders_and_customers(
    home: Path, broker: NatsServer, customers_port: int
) -> AsyncIterator[Runtime]:
    """The real orders, whose record can be read, and the customers."""
    listen = f"127.0.0.1:{customers_port}"
    async with (
        serving(CUSTOMERS, home, listen=listen, nats_url=broker.url),
        serving(ORDERS, home, listen=f"127.0.0.1:{free_port()}", nats_url=broker.url) as orders,
    ):
        yield orders


@pytest.mark.parametrize("emptied", [False, True], ids=["on the broker", "purged"])
async def test_a_restored_database_loses_and_doubles_no_mail(
    tmp_path: Path,
    broker: NatsServer,
    ada: Customer,
    customers_port: int,
    mailbox: Mailbox,
    impatient: None,
    emptied: bool,
) -> None:
    """Mails that went out after the copy go out again as they were: the mail server has them."""
    files = ("notifications.db", "notifications.db-wal", "notifications.db-shm")
    copy = tmp_path / "copy"
    copy.mkdir()
    async with orders_and_customers(tmp_path, broker, customers_port) as orders:
        targets = f"customers=127.0.0.1:{customers_port},orders={orders.settings.address}"

        def notifying() -> AbstractAsyncContextManager[Runtime]:
            return serving(
                SERVICE, tmp_path, nats_url=broker.url, smtp=mailbox.address, targets=targets
            )

        def sent(count: int) -> bool:
            return len(mailbox.mails) == count

        ids = [uuid7() for _ in range(9)]
        for number, group in enumerate((ids[:3], ids[3:6])):
            async with notifying():
                for order_id in group:
                    await publish(orders, confirmed(ada, order_id))
                await until(partial(sent, 3 * number + 3), "the mails")
            if number == 0:
                for name in files:
                    if (tmp_path / name).exists():
                        shutil.copy(tmp_path / name, copy / name)
        for order_id in ids[6:]:
            await publish(orders, confirmed(ada, order_id))
        for name in files:
            (tmp_path / name).unlink(missing_ok=True)
            if (copy / name).exists():
                shutil.copy(copy / name, tmp_path / name)
        if emptied:
            client = await nats.connect(broker.url)
            jetstream = client.jetstream()

            async def published() -> bool:
                return bool((await jetstream.stream_info("ORDERS")).state.last_seq == 9)

            await until(published, "all events on the broker")
            await jetstream.purge_stream("ORDERS")
            await client.close()
        async with notifying() as runtime:

            async def all_sent() -> bool:
                sql = "SELECT COUNT(*) FROM notification WHERE sent_at IS NOT NULL"
                return bool(await runtime.database.read(lambda tx: tx.value(sql)) == 9)

            await until(all_sent, "all mails")
    by_id = defaultdict(list)
    for mail, raw in zip(mailbox.mails, mailbox.raw, strict=True):
        by_id[mail["Message-ID"]].append(raw)
    assert len(by_id) == 9
    assert sorted(map(len, by_id.values())) == [1] * 6 + [2] * 3
    assert all(len(set(copies)) == 1 for copies in by_id.values())
    subjects = {mail["Subject"] for mail in mailbox.mails}
    assert subjects == {f"Your order {order_id} is on its way" for order_id in ids}
