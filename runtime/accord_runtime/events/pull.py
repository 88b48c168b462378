"""Messages of a durable consumer as they come: one request for many, open for as long as it takes.

`fetch` of nats-py asks twice, gives both requests up when a message has come, and so costs the
broker and the client several messages for each event, and as much every few seconds for none.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from nats.aio.msg import Msg

from accord_runtime.events.broker import Broker

EXPIRES: Final = 60.0
"""Seconds for which a request is open."""

HEARTBEAT: Final = 10.0
"""Seconds after which the broker says that the request is open, and that there is nothing."""

CLUSTERED: Final = 1.0
"""The same where there are several servers: one that has taken over the consumer knows of no
request, and nobody tells. And for the first request, which shows that the consumer is there."""

FIRST: Final = 3.0
"""Seconds for which the first request is open."""

SILENCE: Final = 2.5
"""Heartbeats without a word after which the request is taken for forgotten."""


class Pull:
    """What a durable consumer has, for one receiver."""

    def __init__(self, broker: Broker, stream: str, durable: str, most: int, reply: str) -> None:
        self._broker = broker
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._most = most
        self._reply = reply
        self._left = 0  # of what was asked for
        self._messages: list[Msg] = []
        self._gone = False
        self._word = asyncio.Event()
        self._heartbeat = 0.0  # no request yet
        self.clustered = False
        """Whether there are several servers: one leads the stream, and one the consumer."""

    async def next(self) -> list[Msg] | None:
        """What has come; nothing, when the broker has said that there is nothing.

        None: the consumer has gone, or may have, for the connection has.

        Raises:
            LookupError: the broker does not answer.
        """
        if not self._gone:
            if self._left <= 0:
                await self._ask()
            try:
                async with asyncio.timeout(SILENCE * self._heartbeat):
                    await self._word.wait()
            except TimeoutError:
                raise LookupError("the broker is silent") from None
        self._word.clear()
        messages, self._messages = self._messages, []
        return None if self._gone and not messages else messages

    async def _ask(self) -> None:
        client = await self._broker.client()
        self.clustered = len(client.servers) > 1
        first = not self._heartbeat
        self._heartbeat = min(CLUSTERED, HEARTBEAT) if first or self.clustered else HEARTBEAT
        asked = {
            "batch": self._most,
            "expires": int((FIRST if first else EXPIRES) * 1e9),
            "idle_heartbeat": int(self._heartbeat * 1e9),
        }
        self._left = self._most
        await client.publish(self._subject, json.dumps(asked).encode(), self._reply)

    async def came(self, message: Msg) -> None:
        """A message of the consumer, or a word of the broker."""
        status = (message.headers or {}).get("Status")
        if not status:
            self._messages.append(message)
            self._left -= 1
        elif status in ("404", "408"):  # The request has ended.
            self._left = 0
        elif status != "100":  # Deleted, moved to another leader, or not there.
            self._gone = True
        self._word.set()

    def disconnected(self) -> None:
        """Another server, or the same one after a restart, knows of no request."""
        self._gone = True
        self._word.set()


@asynccontextmanager
async def pulling(broker: Broker, stream: str, durable: str, most: int) -> AsyncIterator[Pull]:
    """A durable consumer's messages; up to `most` are asked for at once."""
    client = await broker.client()
    reply = client.new_inbox()
    pull = Pull(broker, stream, durable, most, reply)
    subscription = await client.subscribe(reply, cb=pull.came)
    broker.listeners.add(pull.disconnected)
    if not client.is_connected:
        pull.disconnected()
    try:
        yield pull
    finally:
        broker.listeners.discard(pull.disconnected)
        await subscription.unsubscribe()
