"""Mails that several processes share, each with a database of its own."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from accord_runtime.events import command_sender
from accord_runtime.grpc.ids import derived, uuid7
from accord_runtime.service import Runtime
from services.notifications import mailer, steps
from services.notifications.queue import EMAIL
from services.notifications.servicer import SERVICE
from shop.customers.v1.customers_pb2 import Customer
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import events_pb2
from tests.services.notifications.mailbox import Mailbox
from tests.services.notifications.serving import channel_to, serving
from tests.services.notifications.test_service import confirmed, publish, sent, work
from tests.support.mesh_process import inherited
from tests.support.nats import NatsServer, nats_server
from tests.support.ports import free_port
from tests.support.wait import until


@pytest.fixture
async def broker() -> AsyncIterator[NatsServer]:
    """A broker of this test alone."""
    async with nats_server() as server:
        yield server


@pytest.fixture
def nats_url(broker: NatsServer) -> str:
    return broker.url


@asynccontextmanager
async def sharing(
    home: Path, nats_url: str, customers_port: int, shared_mail: bool = True, smtp: str = ""
) -> AsyncIterator[tuple[Runtime, NotificationServiceStub]]:
    """Notifications that leave the mails to others."""
    targets = f"customers=127.0.0.1:{customers_port},orders=127.0.0.1:{free_port()}"
    async with (
        serving(
            SERVICE, home, nats_url=nats_url, targets=targets, smtp=smtp, shared_mail=shared_mail
        ) as runtime,
        channel_to(runtime) as channel,
    ):
        yield runtime, NotificationServiceStub(channel)


class MailerProcess:
    """A mailer as a process of its own."""

    def __init__(self, home: Path, name: str, notifications: str, nats: str, smtp: str) -> None:
        self._environment = {
            **inherited(),
            "MESH_HOME": str(home),
            "MESH_LISTEN": f"127.0.0.1:{free_port()}",
            "MESH_TARGETS": f"notifications={notifications}",
            "DATABASE_URL": f"sqlite:///{home / name}.db",
            "NATS_URL": nats,
            "SMTP_ADDRESS": smtp,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.notifications.mailer"),
            env=self._environment,
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            await process.wait()


async def test_two_processes_share_the_mails_and_one_is_killed(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    tmp_path: Path,
    broker: NatsServer,
    customers_port: int,
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each outcome has one mail, whoever sends it and dies; notifications know of each."""
    monkeypatch.setattr(command_sender, "LOOK", 0.05)
    events = [confirmed(ada) for _ in range(40)]
    async with sharing(tmp_path, broker.url, customers_port) as (runtime, _):
        both = [
            MailerProcess(tmp_path, name, runtime.settings.address, broker.url, mailbox.address)
            for name in ("one", "two")
        ]
        try:
            for each in both:
                await each.start()
            for event in events[:20]:
                await publish(orders, event)
            await until(lambda: len(mailbox.mails) > 5, "some mails", seconds=60)
            await both[0].end(signal.SIGKILL)
            for event in events[20:]:
                await publish(orders, event)
            await until(lambda: len(mailbox.mails) > 25, "the other one to go on", seconds=60)
            await both[0].start()

            async def all_sent() -> bool:
                sql = "SELECT COUNT(sent_at) FROM notification"
                return bool(await runtime.database.read(lambda tx: tx.value(sql)) == len(events))

            # What the broker had given to the one that died, it gives again after 30 s.
            await until(all_sent, "notifications to know of all", seconds=150)
        finally:
            for each in both:
                await each.end()
    wanted = {f"<{derived(event.order_id, 'mail CONFIRMED')}@shop.internal>" for event in events}
    found = Counter(mail["Message-ID"] for mail in mailbox.mails)
    assert found.keys() == wanted
    # What was with the mail server when the process died comes again as the very same mail.
    assert len(set(mailbox.raw)) == len(wanted)
    assert sum(found.values()) - len(found) <= 2 * EMAIL.concurrency


async def test_bad_news_is_urgent_and_a_full_queue_is_waited_for(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    tmp_path: Path,
    broker: NatsServer,
    customers_port: int,
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the bound news waits in sight, with its reason; then bad news goes first."""
    monkeypatch.setattr(command_sender, "LOOK", 0.05)
    monkeypatch.setattr(command_sender, "RETRY", 0.1)
    monkeypatch.setattr(steps, "EMAIL", replace(EMAIL, max_messages=2))
    monkeypatch.setattr(mailer, "EMAIL", replace(EMAIL, max_messages=2, prefetch=1))
    good = confirmed(ada)
    bad = events_pb2.OrderFailed(order_id=uuid7(), customer_id=ada.customer_id)
    third = confirmed(ada)
    async with sharing(tmp_path, broker.url, customers_port) as (runtime, stub):
        for number, event in enumerate((good, bad), start=1):
            await publish(orders, event)

            async def queued(most: int = number) -> bool:
                sql = "SELECT COUNT(*) FROM command WHERE sequence > 0"
                return bool(await runtime.database.read(lambda tx: tx.value(sql)) == most)

            await until(queued, "the mail to be on the broker")
        await publish(orders, third)

        async def refused() -> bool:
            rows = await work(runtime)
            return [row["queue"] for row in rows if row["attempts"]] == ["address"]

        await until(refused, "the third mail to find no room")
        row = await runtime.database.read(lambda tx: tx.one("SELECT history FROM work"))
        assert row is not None
        assert "QUEUE_FULL" in row["history"]
        targets = f"notifications={runtime.settings.address}"
        async with serving(
            mailer.SERVICE, tmp_path, nats_url=broker.url, smtp=mailbox.address, targets=targets
        ):
            for each in (good, bad, third):
                await sent(stub, each.order_id)
    first = derived(bad.order_id, "mail FAILED")
    assert mailbox.mails[0]["Message-ID"] == f"<{first}@shop.internal>"
    assert len(mailbox.mails) == 3


async def test_what_was_shared_goes_out_though_it_is_not_any_more(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    tmp_path: Path,
    broker: NatsServer,
    customers_port: int,
    mailbox: Mailbox,
) -> None:
    """A mail that was queued for mailers is sent by one, also when later ones are not queued."""
    old, new = confirmed(ada), confirmed(ada)
    async with sharing(tmp_path, broker.url, customers_port) as (runtime, _):
        await publish(orders, old)
        count = "SELECT COUNT(*) FROM command"
        await until(lambda: runtime.database.read(lambda tx: tx.value(count)), "a command")
        broker.stop()
    await broker.start()
    async with sharing(
        tmp_path, broker.url, customers_port, shared_mail=False, smtp=mailbox.address
    ) as (runtime, stub):
        await publish(orders, new)
        await sent(stub, new.order_id)
        targets = f"notifications={runtime.settings.address}"
        async with serving(
            mailer.SERVICE, tmp_path, nats_url=broker.url, smtp=mailbox.address, targets=targets
        ):
            await sent(stub, old.order_id)
    assert len(mailbox.mails) == 2


def test_the_numbers_of_the_queue() -> None:
    """Fifty thousand mails for two days, a hundred at a time, the urgent ones first."""
    assert (EMAIL.max_messages, EMAIL.ttl, EMAIL.prefetch) == (50_000, 48 * 3600, 100)
    assert EMAIL.levels == ("urgent", "normal")
