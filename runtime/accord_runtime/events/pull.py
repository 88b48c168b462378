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

HEARTBEAT: Final = 4.0
"""Seconds after which the broker says that the request is open, and that there is nothing."""

SILENCE: Final = 10.0
"""Seconds without a word after which the request is taken for forgotten."""


class Pull:
    """What a durable consumer has, for one receiver."""

    def __init__(self, broker: Broker, stream: str, durable: str, most: int) -> None:
        self._broker = broker
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._most = most
        self._reply = ""
        self._left = 0  # of what was asked for
        self._messages: list[Msg] = []
        self._problem = ""
        self._word = asyncio.Event()

    async def next(self) -> list[Msg]:
        """What has come; nothing, when the broker has said that there is nothing.

        Raises:
            LookupError: the consumer has gone, or the broker does not answer.
        """
        if self._left <= 0:
            await self._ask()
        if not self._messages:
            self._word.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._word.wait()
            except TimeoutError:
                raise LookupError("the broker is silent") from None
        messages, self._messages = self._messages, []
        if self._problem and not messages:
            raise LookupError(self._problem)
        return messages

    async def _ask(self) -> None:
        asked = {
            "batch": self._most,
            "expires": int(EXPIRES * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
        }
        self._left = self._most
        client = await self._broker.client()
        await client.publish(self._subject, json.dumps(asked).encode(), self._reply)

    async def _came(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if not status:
            self._messages.append(message)
            self._left -= 1
        elif status in ("404", "408"):  # The request has ended.
            self._left = 0
        elif status != "100":
            assert message.headers is not None
            self._problem = message.headers.get("Description") or f"there is no consumer: {status}"
        self._word.set()

    def _connected(self) -> None:
        """Another server, or the same one after a restart, knows of no request."""
        self._left = 0
        self._word.set()


@asynccontextmanager
async def pulling(broker: Broker, stream: str, durable: str, most: int) -> AsyncIterator[Pull]:
    """A durable consumer's messages; up to `most` are asked for at once."""
    client = await broker.client()
    pull = Pull(broker, stream, durable, most)
    pull._reply = client.new_inbox()
    subscription = await client.subscribe(pull._reply, cb=pull._came)
    broker.listeners.add(pull._connected)
    try:
        yield pull
    finally:
        broker.listeners.discard(pull._connected)
        await subscription.unsubscribe()
