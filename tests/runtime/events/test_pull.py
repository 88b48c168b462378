"""One request for many messages, at a real broker that restarts and forgets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from accord_runtime.events.pull import Pull, pulling
from tests.runtime.events.support import STREAM, broker_at
from tests.runtime.events.test_inbox import make_stream, send
from tests.support.nats import NatsServer
from tests.support.wait import until


async def consume(jetstream: JetStreamContext) -> None:
    """A durable consumer of everything."""
    config = ConsumerConfig(durable_name="shipping", ack_policy=AckPolicy.NONE)
    await jetstream.add_consumer(STREAM, config)


async def take(pull: Pull, count: int) -> list[Msg]:
    """So many messages."""
    found = list[Msg]()
    while len(found) < count:
        messages = await pull.next()
        assert messages is not None
        found += messages
    return found


@asynccontextmanager
async def begun(server: NatsServer) -> AsyncIterator[tuple[JetStreamContext, Pull]]:
    """A request of which one message has come."""
    broker = broker_at(server.url, "shipping")
    async with server.jetstream() as jetstream:
        await make_stream(jetstream)
        await consume(jetstream)
        async with pulling(broker, STREAM, "shipping", 10) as pull:
            await send(jetstream, "k", 1)
            assert len(await take(pull, 1)) == 1
            yield jetstream, pull
    await broker.close()


async def test_one_request_brings_many_messages(broker_server: NatsServer) -> None:
    """Messages come in order, far more of them than requests are made."""
    broker, asked = broker_at(broker_server.url, "shipping"), 0
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        await consume(jetstream)
        async with pulling(broker, STREAM, "shipping", 10) as pull:
            ask = pull._ask

            async def counting() -> None:
                nonlocal asked
                asked += 1
                await ask()

            pull._ask = counting  # type: ignore[method-assign]
            found = list[Msg]()
            for number in range(1, 36):
                await send(jetstream, "k", number)
                found += await take(pull, 1)
    await broker.close()
    assert [each.metadata.sequence.stream for each in found] == list(range(1, 36))
    assert asked == 4


async def test_what_came_before_the_end_is_given_and_then_the_end(
    broker_server: NatsServer,
) -> None:
    """A message and the end of the request that come together are both told, without a wait."""
    async with begun(broker_server) as (jetstream, pull):
        await send(jetstream, "k", 2)
        await until(lambda: pull._messages, "another message")
        pull.disconnected()
        assert len(await pull.next() or ()) == 1
        async with asyncio.timeout(5):
            assert await pull.next() is None


async def test_a_consumer_that_is_deleted_is_told(broker_server: NatsServer) -> None:
    """The request ends with None when there is no consumer any more."""
    async with begun(broker_server) as (jetstream, pull):
        await jetstream.delete_consumer(STREAM, "shipping")
        assert await pull.next() is None


async def test_a_broker_that_has_gone_has_forgotten_the_request(broker_server: NatsServer) -> None:
    """The request ends with None when the connection is lost: nobody waits for an answer."""
    broker = broker_at(broker_server.url, "shipping")
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        await consume(jetstream)
    async with pulling(broker, STREAM, "shipping", 10) as pull:
        async with broker_server.jetstream() as jetstream:
            await send(jetstream, "k", 1)
        assert len(await take(pull, 1)) == 1
        broker_server.kill()
        async with asyncio.timeout(5):
            assert await pull.next() is None
    await broker.close()
