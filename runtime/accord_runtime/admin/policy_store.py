"""Live policy in the broker's key-value store: one bucket for the whole mesh.

A key is a method's name, "some.v1.SomeService/SomeMethod"; its value is an override as JSON
(`accord.ops.v1.Override`). Every process follows the bucket and applies what concerns it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final

import nats.errors
from nats.js.api import KeyValueConfig
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, NoKeysError
from nats.js.kv import KeyValue

from accord_runtime.events.broker import Broker
from accord_runtime.grpc.operator_contracts import POLICY_BUCKET
from accord_runtime.ticks import until_next

BUCKET: Final = POLICY_BUCKET

SOON: Final = 0.05
"""Seconds from one look at the bucket to the next, just after something was written to it.

Who is told may come before it can be read, so the look is repeated, each time after twice as long.
"""

SELDOM: Final = 4.0
"""Seconds after which it is noticed that the connection was lost: looked at then, and else ..."""

TIMES: Final = 10
"""... every so many times, although nothing was told."""

PATIENCE: Final = 1.0
"""Seconds that a look or a change may take: what an outage has swallowed is not waited for."""


class BrokerPolicyStore:
    """See `accord.overrides.PolicyStore`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def watch(self) -> AsyncIterator[Mapping[str, str]]:
        """All overrides, and again after every change. Raises when the broker is away."""
        bucket = await self._bucket()
        # What is written is a message to everybody who listens. A consumer, as of the client's own
        # watch, may be lost in silence when the broker restarts; this is made again.
        client = await self._broker.client()
        written = await client.subscribe(f"$KV.{BUCKET}.>")
        try:
            seen, pause = None, SOON
            while True:
                reconnects = client.stats["reconnects"]
                async with asyncio.timeout(PATIENCE):
                    last = (await bucket.status()).stream_info.state.last_seq
                    documents = None if last == seen else await _documents(bucket)
                if documents is not None:
                    yield documents
                    seen = last
                for _ in range(TIMES):
                    try:
                        await written.next_msg(min(pause, until_next(SELDOM)))
                        pause = SOON
                    except TimeoutError:
                        pause = min(2 * pause, SELDOM)
                    lost = not client.is_connected or client.stats["reconnects"] != reconnects
                    if lost or pause < SELDOM:
                        break
        finally:
            with suppress(nats.errors.Error):
                await written.unsubscribe()

    async def put(self, method: str, document: str) -> None:
        """Keep an override. Raises when the broker is away."""
        async with asyncio.timeout(PATIENCE):
            await (await self._bucket()).put(method, document.encode())

    async def delete(self, method: str) -> None:
        """Forget an override; without one, nothing happens. Raises when the broker is away."""
        async with asyncio.timeout(PATIENCE):
            await (await self._bucket()).delete(method)

    async def _bucket(self) -> KeyValue:
        jetstream = await self._broker.jetstream()  # waits for as long as there is no broker
        async with asyncio.timeout(PATIENCE):
            try:
                bucket = await jetstream.key_value(BUCKET)
            except BucketNotFoundError:
                bucket = await jetstream.create_key_value(KeyValueConfig(BUCKET, history=5))
            await self._broker.ensure_copies(jetstream, (await bucket.status()).stream_info)
            return bucket


async def _documents(bucket: KeyValue) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        keys = await bucket.keys()
    except NoKeysError:
        return found
    for key in keys:
        try:
            entry = await bucket.get(key)
        except KeyNotFoundError:
            continue  # deleted meanwhile
        found[key] = (entry.value or b"").decode(errors="replace")
    return found
