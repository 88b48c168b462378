"""The broker's secret, and its health."""

import asyncio
import os
from pathlib import Path

import nats

from services import topology
from shopctl.supervisor import broker
from shopctl.supervisor.health import State, check_broker
from shopctl.supervisor.programs import select
from shopctl.supervisor.restarts import Event
from tests.shopctl.supervisor.test_restarts import Watched, running
from tests.support.nats import nats_server
from tests.support.ports import free_offset
from tests.support.small_disk import SmallDisk
from tests.support.wait import DEADLINE, until


def test_token_is_made_once(tmp_path: Path) -> None:
    """The token is random, stays, and an empty file left by a crash is replaced."""
    first = broker.token(tmp_path)
    assert broker.token(tmp_path) == first
    (tmp_path / broker.TOKEN_FILE).write_text("")
    assert broker.token(tmp_path) not in ("", first)


async def test_a_broker_that_refuses_is_started_again(small_disk: SmallDisk) -> None:
    """After a full disk a stream refuses all writes for good: that is seen, said, and ended."""
    home = small_disk.folder
    offset = free_offset()
    broker.write_config(home, offset)
    program = select(
        home,
        offset=offset,
        left_out=[*topology.SERVICES, topology.EDGE, topology.CONSOLE],
        database_url="",
        nats_url="",
        inherited=os.environ,
    ).programs[0]
    watched = Watched(program)
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        client = await nats.connect(
            f"nats://{program.address}", token=broker.token(home), max_reconnect_attempts=-1
        )
        jetstream = client.jetstream(timeout=1)
        await jetstream.add_stream(name="ORDERS", subjects=["orders.>"])
        small_disk.fill()

        async def publishes() -> bool:
            try:
                return bool(await jetstream.publish("orders.a", b"x" * 300, timeout=1))
            except (OSError, nats.errors.Error):
                return False

        while await publishes():
            pass  # into what is left of the last page
        state, reason, _ = await check_broker(program.address, 2.0)
        assert state is State.NOT_SERVING
        assert "ORDERS" in reason
        assert "no space left" in reason
        small_disk.free()
        assert not await publishes()
        await until(publishes, "the broker to store again")
        await client.close()
    (notice,) = watched.said(Event.DIED)
    assert notice.text.startswith("broker refused (")
    assert "no space left" in notice.text


async def test_a_broker_of_others_need_not_tell_its_health() -> None:
    """One without a port for its health serves when it greets; what is no broker does not."""
    async with nats_server() as server:
        assert (await check_broker(f"127.0.0.1:{server.port}", 2.0)).state is State.SERVING
    listener = await asyncio.start_server(lambda _, writer: writer.write(b"220 mail"), "127.0.0.1")
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await check_broker(f"127.0.0.1:{port}", 2.0)).state is State.NOT_SERVING
    assert (await check_broker(f"127.0.0.1:{port}", 2.0)).state is State.UNREACHABLE
