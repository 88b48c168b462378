"""A cluster of three brokers whose leader is killed while events are published and received."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sized
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import nats
import pytest
from nats.js import JetStreamContext

from accord_runtime.database import Database, Tx
from accord_runtime.events import outbox
from accord_runtime.events.inbox import Received
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded
from tests.chaos.scale import FULL
from tests.runtime.conftest import record as record
from tests.runtime.events.support import (
    STREAM,
    OrdersProcess,
    caught_up,
    note,
    publishing,
    receiving,
    record_of,
)
from tests.support.nats import NatsServer, nats_cluster
from tests.support.wait import until

EVENTS: Final = 20_000 if FULL else 1_000
KEYS: Final = 200
KILLS: Final = 3 if FULL else 1
LONGEST: Final = 7.0
"""Seconds without an event that is received. nats-server elects a leader 4 to 9 s after the last
one was heard, and later if votes are split; until then events come from their source's record."""


class Receiver:
    """Writes down what it receives, and notes the longest silence."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()

    async def __call__(self, event: Received[OrderNoteAdded]) -> Effect:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now

        def write(tx: Tx) -> None:
            tx.insert("results", {"id": event.event_id, "text": f"{event.key} {event.sequence}"})

        return write

    def begin(self) -> None:
        """Silence counts from now on."""
        self.longest, self._last = 0.0, time.monotonic()


async def leader(servers: list[NatsServer]) -> NatsServer | None:
    """The one that leads the stream, if any does at the moment."""
    for server in servers:
        try:
            async with asyncio.timeout(2), server.jetstream() as jetstream:
                info = await jetstream.stream_info(STREAM)
        except (OSError, TimeoutError, nats.errors.Error):
            continue
        if info.cluster and info.cluster.leader:
            return servers[int(info.cluster.leader.removeprefix("n")) - 1]
    return None


async def has_all(record: Database, jetstream: JetStreamContext) -> bool:
    """Whether the broker has all events, and the receiver has got them from it."""
    try:
        length = (await jetstream.stream_info(STREAM)).state.messages
        return length >= await record.read(outbox.committed) and await caught_up(record, jetstream)
    except (TimeoutError, nats.errors.Error):
        return False


async def results_of(record: Database) -> int:
    """How many effects there were."""
    return await record.read(lambda tx: int(tx.value("SELECT COUNT(*) FROM results")))


async def kill_leaders(servers: list[NatsServer], ids: Sized) -> None:
    """Kill whoever leads, as events are appended; it comes back after a second."""
    victim: NatsServer | None = None

    async def found() -> bool:
        nonlocal victim
        victim = await leader(servers)
        return victim is not None

    for number in range(1, KILLS + 1):
        await until(lambda: len(ids) >= EVENTS * number // (KILLS + 1), "events")  # noqa: B023
        await until(found, "a leader")
        assert victim is not None
        victim.kill()
        await asyncio.sleep(1)
        await victim.start()


@asynccontextmanager
async def flowing(
    record: Database, receiver: Receiver
) -> AsyncIterator[tuple[list[NatsServer], OrdersProcess]]:
    """Three brokers, by which a first event has been received; and who publishes."""
    async with nats_cluster() as servers:
        urls = ",".join(server.url for server in servers)
        async with (
            publishing(record, urls, replicas=3) as orders,
            receiving(record, urls, {OrderNoteAdded: receiver}, record=record_of(record)),
        ):
            await orders.append(note("first"))
            await until(partial(results_of, record), "the first event")
            yield servers, orders


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_leader_is_killed_while_events_flow(record: Database) -> None:
    """Every event has its effect once, in the order of its key, with a short gap at most."""
    receiver = Receiver()
    async with flowing(record, receiver) as (servers, orders):
        receiver.begin()
        began = time.monotonic()
        ids: list[str] = []

        killing = asyncio.create_task(kill_leaders(servers, ids))
        while len(ids) < EVENTS or not killing.done():
            keys = [f"k{(len(ids) + n) % KEYS}" for n in range(50)]
            ids += await orders.append(*(note(key) for key in keys))
        await killing

        async def all_there() -> bool:
            return await results_of(record) == len(ids) + 1

        await until(all_there, "all effects", seconds=300)
        async with servers[0].jetstream() as jetstream:
            await until(lambda: has_all(record, jetstream), "the broker's events")
        seconds = time.monotonic() - began
        rows = await record.read(lambda tx: tx.all("SELECT id, text FROM results ORDER BY rowid"))
        assert await orders.head() == await record.read(outbox.committed) == len(ids) + 1
    doubled = [each for each, times in Counter(row["id"] for row in rows).items() if times > 1]
    missing = set(ids) - {row["id"] for row in rows}
    seen: dict[str, list[int]] = {}
    for row in rows:
        key, sequence = row["text"].split()
        seen.setdefault(key, []).append(int(sequence))
    print(
        f"\n{len(ids)} events in {seconds:.1f} s, {KILLS} kills: {len(missing)} lost,"
        f" {len(doubled)} doubled, longest gap {receiver.longest:.1f} s"
    )
    assert not missing
    assert not doubled
    assert all(each == sorted(each) for each in seen.values())
    assert receiver.longest <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_cluster_without_a_leader_is_read_around(record: Database) -> None:
    """With two of three brokers dead events come from the record, and by the broker afterwards."""
    receiver = Receiver()
    async with flowing(record, receiver) as (servers, orders):
        for server in servers[:2]:
            server.kill()
        receiver.begin()
        await orders.append(note("second"))

        async def two() -> bool:
            return await results_of(record) == 2

        await until(two, "the second event")
        for server in servers[:2]:
            await server.start()
        async with servers[2].jetstream() as jetstream:
            await until(lambda: has_all(record, jetstream), "the broker's events")
        assert await results_of(record) == 2
    assert receiver.longest <= LONGEST
