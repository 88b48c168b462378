"""The connection to the broker: seeds, copies of streams, and cancelling what talks to it."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from accord_runtime.admin.policy_store import BUCKET, BrokerPolicyStore
from accord_runtime.database import Database
from accord_runtime.events.broker import Broker, abortable, persistently
from tests.runtime.events.support import STREAM, broker_at, length, note, publishing
from tests.support.nats import NatsServer, nats_cluster
from tests.support.ports import free_port
from tests.support.wait import until


async def test_a_cancellation_that_is_swallowed_is_repeated() -> None:
    """Work that loses two cancellations, as `asyncio.wait_for` can, still ends with the third."""
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
                if heard == 3:
                    raise

    task = asyncio.create_task(abortable(deaf()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard == 3


async def test_an_error_reaches_the_caller() -> None:
    """What the work raises is raised."""

    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await abortable(fails())


async def test_a_seed_that_is_down_at_the_start_is_said(
    broker_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Within two seconds and once; with another seed in the list there is a connection."""
    caplog.set_level(logging.INFO)
    down = f"nats://127.0.0.1:{free_port()}"
    broker = broker_at(down, "orders")
    waiting = asyncio.create_task(broker.client())
    await until(lambda: "the broker is away" in caplog.text, "the outage to be said", seconds=2)
    assert down.removeprefix("nats://127.0.0.1:") in caplog.text
    assert "refused" in broker.problem.lower() or "failed" in broker.problem.lower()
    await asyncio.sleep(0.6)  # another attempt
    assert caplog.text.count("the broker is away") == 1
    waiting.cancel()
    several = broker_at(f"{down}, {broker_server.url}", "orders")
    async with asyncio.timeout(5):
        assert (await several.client()).is_connected
    assert f"connected to the broker at 127.0.0.1:{broker_server.port}" in caplog.text
    await several.close()


def test_what_a_websocket_needs_is_not_loaded_before_there_is_one() -> None:
    """A service starts without aiohttp, which would make it take a fifth longer."""
    program = "import sys, accord_runtime.process; print('aiohttp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


async def test_a_broker_behind_a_websocket(tmp_path: Path) -> None:
    """It is connected to as any other."""
    port, file = free_port(), tmp_path / "nats.conf"
    file.write_text(f"websocket {{host: 127.0.0.1, port: {port}, no_tls: true}}")
    server = NatsServer(tmp_path, "-c", str(file))
    try:
        await server.start()
        broker = broker_at(f"ws://127.0.0.1:{port}", "orders")
        async with asyncio.timeout(5):
            assert (await broker.client()).is_connected
        await broker.close()
    finally:
        server.kill()


async def test_a_lost_connection_and_its_return_are_said(
    broker_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are lines of information, with the server that it is now."""
    caplog.set_level(logging.INFO)
    broker = broker_at(broker_server.url, "orders")
    await broker.client()
    await broker_server.restart()
    await until(lambda: caplog.text.count("connected to the broker at") == 2, "the return")
    assert "the connection to the broker is lost" in caplog.text
    await broker.close()


async def test_who_waits_for_the_connection_does_not_spin(
    broker_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client knows that the connection is lost before it tells; until then others go on."""
    broker, asked = broker_at(broker_server.url, "orders"), 0
    client = await broker.client()

    async def counted() -> Client:
        nonlocal asked
        asked += 1
        assert asked < 10
        return client

    monkeypatch.setattr(broker, "client", counted)
    client._status = client.RECONNECTING
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await broker.jetstream()
    client._status = client.CONNECTED
    assert await broker.jetstream()
    await broker.close()


async def test_what_fails_again_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is said at once, and one that goes on once a minute."""
    failures = iter([OSError("a"), OSError("a"), OSError("b"), OSError("b")])

    async def failing() -> None:
        raise next(failures, asyncio.CancelledError())

    with pytest.raises(asyncio.CancelledError):
        await persistently("trying", failing)
    assert [record.getMessage() for record in caplog.records] == [
        "trying: OSError: a; trying again",
        "trying: OSError: b; trying again",
    ]


async def test_copies_are_refused_where_there_is_no_cluster(
    record: Database, broker_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker's own words are in the log, once, and events are published all the same."""
    async with publishing(record, broker_server.url, 3) as orders:
        await orders.append(note("a"))
        async with broker_server.jetstream() as jetstream:

            async def there() -> bool:
                return bool(await length(jetstream))

            await until(there, "the event")
    (said,) = [each.getMessage() for each in caplog.records if "copies" in each.getMessage()]
    assert said.startswith("no 3 copies of stream ORDERS: ")
    assert "non-clustered" in said


async def kept(broker: Broker) -> bool:
    """Write live policy; while copies are made there may be nobody to take it."""
    try:
        await BrokerPolicyStore(broker).put("shop.v1.S/M", "{}")
    except (TimeoutError, nats.errors.Error):
        return False
    return True


async def test_copies_follow_the_setting_upwards() -> None:
    """Streams and live policy that have one copy get three while they are used, and keep them."""
    async with nats_cluster() as servers:
        urls = ",".join(server.url for server in servers)
        async with servers[0].jetstream() as jetstream:

            async def copies(stream: str) -> int | None:
                return (await jetstream.stream_info(stream)).config.num_replicas

            async def seen(replicas: int) -> list[int | None]:
                broker = broker_at(urls, "orders", replicas)
                await broker.ensure_stream(await broker.jetstream(), "orders")
                await until(lambda: kept(broker), "the policy to be kept")
                await broker.close()
                return [await copies(STREAM), await copies(f"KV_{BUCKET}")]

            assert await seen(1) == [1, 1]
            await jetstream.publish("orders.a", b"before")
            assert await seen(3) == [3, 3]
            assert await seen(1) == [3, 3]
            assert (await jetstream.stream_info(STREAM)).state.messages == 1
