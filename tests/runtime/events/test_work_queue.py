"""Work queues between databases, over a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.js.errors import APIError

from accord.errors import ResourceExhausted
from accord.ops.v1.work_pb2 import QueueStatus
from accord_runtime.database import Database, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import command_sender, work_queue
from accord_runtime.events.command_receiver import CommandReceiver
from accord_runtime.events.command_sender import CommandSender
from accord_runtime.events.work_queue import WorkQueue
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import MIGRATIONS
from accord_runtime.work import table
from accord_runtime.work.executor import Executor
from accord_runtime.work.items import Item
from accord_runtime.work.table import Effect
from shop.orders.v1.commands_pb2 import ProcessOrder
from tests.runtime.conftest import RESULTS
from tests.runtime.events.support import background, broker_at, length, note, publishing
from tests.runtime.work.support import at_work, parked_items, result, results, rows
from tests.support.nats import NatsServer
from tests.support.wait import until

LITTLE = WorkQueue(
    "little", ProcessOrder, "order_id", max_messages=3, ttl=3600, prefetch=2, delays=(0.0, 0.1)
)
LARGE = replace(LITTLE, max_messages=1000, prefetch=50)

Handler = Callable[[ProcessOrder], Awaitable[Effect | None]]


async def carry_out(command: ProcessOrder) -> Effect:
    """What is done shows in the results, once for each time."""
    return result(command.order_id)


class Sending:
    """The process that sends."""

    def __init__(self, queue: WorkQueue, database: Database, url: str) -> None:
        self.database = database
        self.executor = Executor(database, "sender")
        self.broker = broker_at(url, "orders")
        self.sender = CommandSender(
            queue, database=database, broker=self.broker, executor=self.executor
        )

    async def send(self, level: str | None = None, order_id: str = "") -> str:
        """Send a command; returns its id."""
        command = ProcessOrder(order_id=order_id or uuid7())
        await self.database.write(lambda tx: self.sender.send(tx, command, level))
        return command.order_id

    async def status(self) -> QueueStatus:
        """What its operator sees."""
        return await self.database.read(self.sender.status)

    async def waiting(self) -> int:
        """Commands that nobody has taken, as far as the sender knows."""
        return int((await self.status()).waiting)


@asynccontextmanager
async def sending(queue: WorkQueue, database: Database, url: str) -> AsyncIterator[Sending]:
    """A process that sends."""
    process = Sending(queue, database, url)
    async with background(process.sender.serve()), at_work(process.executor):
        yield process
    await process.broker.close()


@asynccontextmanager
async def receiving(
    queue: WorkQueue,
    database: Database,
    url: str,
    handler: Handler = carry_out,
    ready: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Executor]:
    """A process that receives."""
    broker = broker_at(url, "shipping")
    executor = Executor(database, "receiver")
    receiver = CommandReceiver(
        queue, handler, database=database, broker=broker, executor=executor, ready=ready
    )
    async with at_work(executor), background(receiver.serve()):
        yield executor
    await broker.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Database]]]:
    """Makes further databases."""
    async with AsyncExitStack() as stack:

        async def make() -> Database:
            database = await open_database(f"sqlite:///{tmp_path / uuid7()}.db", "test")
            stack.push_async_callback(database.close)
            await migrate(database, "runtime", MIGRATIONS)
            await migrate(database, "test", [RESULTS])
            return database

        yield make


Other = Callable[[], Awaitable[Database]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender looks often."""
    monkeypatch.setattr(command_sender, "LOOK", 0.05)


def done(ids: list[str], *databases: Database) -> Callable[[], Awaitable[bool]]:
    """Whether these commands were carried out, each once."""

    async def check() -> bool:
        found = [id_ for each in databases for id_ in await results(each)]
        return sorted(found) == sorted(ids)

    return check


async def parked(database: Database) -> list[Item]:
    """What waits for the operator."""
    return await database.read(parked_items)


async def retry(database: Database, item: Item, executor: Executor) -> None:
    """What the operator does about it."""
    await database.write(lambda tx: table.unpark(tx, item.id, 0.0))
    executor.wake()


async def test_a_full_queue_refuses_what_is_new_until_it_is_taken(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """At the bound a command is refused with a delay, by sender and broker; then taken again."""
    async with (
        sending(LITTLE, record, broker_server.url) as process,
        broker_server.jetstream() as jetstream,
    ):
        ids = [await process.send() for _ in range(3)]
        with pytest.raises(ResourceExhausted) as caught:
            await process.send()
        assert caught.value.reason == "QUEUE_FULL"
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= command_sender.RETRY

        async def all_published() -> bool:
            return await length(jetstream, LITTLE.stream) == 3

        await until(all_published, "the broker to have them")
        with pytest.raises(APIError) as full:
            await jetstream.publish(LITTLE.subject("normal"), b"x")
        assert full.value.err_code == 10077
        status = await process.status()
        assert (status.waiting, status.max_waiting, status.refused) == (3, 3, 1)

        receiver = await other()
        async with receiving(LITTLE, receiver, broker_server.url):
            await until(done(ids, receiver), "all to be done")

            async def taken() -> bool:
                return not await process.waiting()

            await until(taken, "the sender to know")
            ids.append(await process.send())
            await until(done(ids, receiver), "another to be done")


async def test_no_more_is_taken_than_can_be_done(
    record: Database, broker_server: NatsServer
) -> None:
    """A database has at most the prefetch of commands that are not done; the rest waits."""
    started: list[str] = []
    go = asyncio.Semaphore(0)
    most = 0

    async def hold(command: ProcessOrder) -> Effect:
        nonlocal most
        started.append(command.order_id)
        most = max(most, len(await rows(record)))
        await go.acquire()
        return result(command.order_id)

    queue = replace(LITTLE, max_messages=100)
    async with (
        sending(queue, record, broker_server.url) as process,
        receiving(queue, record, broker_server.url, hold),
    ):
        ids = [await process.send() for _ in range(7)]

        async def five_wait() -> bool:
            return len(started) == 2 and await process.waiting() == 5

        await until(five_wait, "two of seven to be taken")
        for _ in ids:
            go.release()
        await until(done(ids, record), "all to be done")
    assert most == 2


async def test_nothing_is_taken_while_there_is_too_much_work(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """A receiver that is not ready leaves all to others, and takes what is left when it is."""
    ready: list[bool] = []
    busy, idle = await other(), await other()
    async with (
        sending(LARGE, record, broker_server.url) as process,
        receiving(LARGE, busy, broker_server.url, ready=lambda: bool(ready)),
    ):
        async with receiving(LARGE, idle, broker_server.url):
            ids = [await process.send() for _ in range(5)]
            await until(done(ids, idle), "the other one to do all")
        later = [await process.send() for _ in range(5)]
        ready.append(True)
        await until(done(later, busy), "the rest to be done")


async def test_what_is_urgent_comes_first(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """Of what waits the more urgent level is taken first, whenever it came."""
    order: list[str] = []

    async def remember(command: ProcessOrder) -> None:
        order.append(command.order_id)

    queue = replace(LARGE, prefetch=1, levels=("urgent", "normal"))
    async with sending(queue, record, broker_server.url) as process:
        later = [await process.send() for _ in range(3)]
        async with broker_server.jetstream() as jetstream:

            async def published() -> bool:
                return await length(jetstream, queue.stream) == 3

            await until(published, "the broker to have what is not urgent")
            first = [await process.send("urgent") for _ in range(3)]

            async def more() -> bool:
                return await length(jetstream, queue.stream) == 6

            await until(more, "the broker to have all")
        async with receiving(queue, await other(), broker_server.url, remember):
            await until(lambda: len(order) == 6, "all to be done")
    assert order == first + later


async def test_databases_share_a_queue(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """Two receivers with databases of their own do each command once, and both do some."""
    first, second = await other(), await other()
    queue = replace(LARGE, prefetch=5)

    async def slowly(command: ProcessOrder) -> Effect:
        await asyncio.sleep(0.02)
        return result(command.order_id)

    async with (
        sending(queue, record, broker_server.url) as process,
        receiving(queue, first, broker_server.url, slowly),
        receiving(queue, second, broker_server.url, slowly),
    ):
        ids = [await process.send() for _ in range(60)]
        await until(done(ids, first, second), "all to be done")
    assert await results(first)
    assert await results(second)


async def test_what_was_not_acknowledged_is_done_once(
    record: Database,
    broker_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that the broker gives again, as its acknowledgement was lost, is recognised."""
    monkeypatch.setattr(work_queue, "ACK_WAIT", 1.0)
    lost: list[Msg] = []
    acknowledge = Msg.ack_sync

    async def lose(message: Msg, timeout: float = 1) -> Msg:
        if not lost:
            lost.append(message)
            raise TimeoutError
        return await acknowledge(message, timeout)

    monkeypatch.setattr(Msg, "ack_sync", lose)
    async with (
        sending(LITTLE, record, broker_server.url) as process,
        receiving(LITTLE, record, broker_server.url),
    ):
        ids = [await process.send()]

        async def known() -> bool:
            return not await process.waiting()

        await until(known, "it to be acknowledged")
        assert lost
        assert await done(ids, record)()


async def test_what_the_broker_loses_is_sent_again(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """A queue that is deleted with commands in it is made anew, and events do not wait for it."""
    queue = replace(LARGE)
    receiver = await other()
    async with (
        sending(queue, record, broker_server.url) as process,
        broker_server.jetstream() as jetstream,
        publishing(await other(), broker_server.url) as events,
    ):
        ids = [await process.send() for _ in range(5)]

        async def published() -> bool:
            return await length(jetstream, queue.stream) == 5

        await until(published, "the broker to have them")
        async with receiving(replace(queue, prefetch=0), receiver, broker_server.url):
            await jetstream.delete_stream(queue.stream)
            await events.append(note("a"))

            async def event_published() -> bool:
                return await length(jetstream) == 1

            await until(event_published, "the event")
            await until(published, "the queue to be made and filled again")
        async with receiving(queue, receiver, broker_server.url):
            await until(done(ids, receiver), "all to be done")
            # While somebody receives.
            await jetstream.delete_stream(queue.stream)
            ids += [await process.send() for _ in range(5)]
            await until(done(ids, receiver), "the later ones to be done")


async def test_a_broker_that_lost_its_tail_gets_it_again(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """Commands behind the end of a restored broker are sent again, also if it is filled since."""
    receiver = await other()
    async with sending(LARGE, record, broker_server.url) as process:
        ids = [await process.send()]

        async def published() -> bool:
            async with broker_server.jetstream() as jetstream:
                return await length(jetstream, LARGE.stream) == len(ids)

        await until(published, "the first")
        broker_server.stop()
        broker_server.save()
        await broker_server.start()
        ids += [await process.send() for _ in range(3)]
        await until(published, "the others")
        broker_server.kill()
        broker_server.restore()
        ids += [await process.send() for _ in range(3)]
        await broker_server.start()
        async with receiving(LARGE, receiver, broker_server.url):
            await until(done(ids, receiver), "all to be done")

            async def known() -> bool:
                return not await process.waiting()

            await until(known, "the sender to know")


async def test_what_expires_is_parked_with_its_reason(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """A command that was not taken in time is not done, but parked; the operator may have it done.

    Where the broker had it the receiver parks it, where not, the sender.
    """
    queue, receiver = replace(LITTLE, ttl=0.3), await other()
    async with sending(queue, record, broker_server.url) as process:
        ids = [await process.send()]
        async with broker_server.jetstream() as jetstream:

            async def published() -> bool:
                return await length(jetstream, queue.stream) == 1

            await until(published, "the broker to have it")
        await asyncio.sleep(queue.ttl)
        broker_server.stop()
        ids.append(await process.send())
        await until(lambda: parked(record), "the sender to park")
        (item,) = await parked(record)
        assert (item.queue, item.key, item.attempts) == ("expired:little", ids[1], 0)
        assert item.last_error.startswith("expired after 0.3 s, before the broker took it: ")
        await broker_server.start()
        async with receiving(queue, receiver, broker_server.url) as executor:
            await until(lambda: parked(receiver), "the receiver to park")
            (late,) = await parked(receiver)
            assert (late.queue, late.key) == ("little:normal", ids[0])
            assert late.last_error.startswith("expired at 20")
            assert await results(receiver) == []
            await retry(receiver, late, executor)
            await until(done(ids[:1], receiver), "the first to be done")
            await retry(record, item, process.executor)
            await until(done(ids, receiver), "the second to be done")


async def test_what_is_no_command_is_parked_with_its_reason(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """Messages of another type, not of the contract or without a time are parked one by one."""
    receiver, id_ = await other(), uuid7()
    good = {
        "ce-id": id_,
        "ce-type": "shop.orders.v1.ProcessOrder",
        "ce-expirytime": "2999-01-01T00:00:00+00:00",
    }
    body = ProcessOrder(order_id=id_).SerializeToString()
    bad: list[tuple[dict[str, str], bytes, str]] = [
        ({}, b"\xff", "malformed: its ce-type is ''"),
        ({**good, "ce-id": "1", "ce-type": "x.Y"}, body, "malformed: its ce-type is 'x.Y'"),
        ({**good, "ce-id": "2"}, b"\xff", "malformed: no shop.orders.v1.ProcessOrder: "),
        ({**good, "ce-id": "3"}, b"", "malformed: order_id: "),
        ({**good, "ce-id": "4"}, body, "malformed: its ce-id is not the command's order_id"),
        ({**good, "ce-expirytime": "soon"}, body, "malformed: its ce-expirytime is no time"),
    ]
    async with (
        sending(LARGE, record, broker_server.url) as process,
        receiving(LARGE, receiver, broker_server.url),
        broker_server.jetstream() as jetstream,
    ):
        ids = [await process.send()]
        await until(done(ids, receiver), "the queue to be there")
        for headers, payload, _ in bad:
            await jetstream.publish(LARGE.subject("normal"), payload, headers=headers)
        ids.append(await process.send())
        await until(done(ids, receiver), "the good ones to be done")

        async def all_parked() -> bool:
            return len(await parked(receiver)) == len(bad)

        await until(all_parked, "the bad ones to be parked")
        for item, (_, _, why) in zip(await parked(receiver), bad, strict=True):
            assert item.last_error.startswith(why)


async def test_three_attempts_and_then_it_is_parked(
    record: Database, broker_server: NatsServer, other: Other
) -> None:
    """What fails three times is the operator's, by the executor; the broker never has it again."""
    tried: list[str] = []

    async def fail(command: ProcessOrder) -> None:
        tried.append(command.order_id)
        raise RuntimeError("no")

    receiver = await other()
    async with (
        sending(LITTLE, record, broker_server.url) as process,
        receiving(LITTLE, receiver, broker_server.url, fail),
    ):
        ids = [await process.send() for _ in range(3)]

        async def all_parked() -> bool:
            return len(await parked(receiver)) == 3

        await until(all_parked, "all to be parked")
        items = await parked(receiver)
        # What is parked takes no room.
        ids.append(await process.send())
        await until(lambda: tried.count(ids[3]) == 3, "another one to be tried")
    assert [(item.key, item.attempts) for item in items] == [(each, 3) for each in ids[:3]]
    assert sorted(tried) == sorted(3 * ids)


def test_the_usual_attempts() -> None:
    """A queue that says nothing of it has three attempts."""
    assert len(work_queue.DELAYS) + 1 == 3
