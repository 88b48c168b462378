"""Whatever is lost, in whatever order: every event has one effect, in the order of its key."""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nats.js.errors import APIError, NotFoundError

from accord_runtime.database import open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import audit, inbox, publisher, pull
from accord_runtime.events.inbox import Received
from accord_runtime.process import MIGRATIONS
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded
from tests.runtime.conftest import RESULTS
from tests.runtime.events.support import (
    STREAM,
    Copy,
    OrdersProcess,
    caught_up,
    note,
    publishing,
    receiving,
    record_of,
)
from tests.runtime.work.support import result
from tests.support.nats import NatsServer, nats_server
from tests.support.wait import until

T = TypeVar("T")


async def _handle(event: Received[OrderNoteAdded]) -> Effect:
    return result(event.key, str(event.sequence))


class Losses(RuleBasedStateMachine):
    """A publisher, a broker and a receiver, and what happens to them."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.parts = AsyncExitStack()
        self.receiver = AsyncExitStack()
        self.receives = False
        self.published: dict[str, int] = {}
        self.copy: Copy | None = None
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _begin(self) -> None:
        folder = self.parts.enter_context(tempfile.TemporaryDirectory())
        self.database = await open_database(f"sqlite:///{Path(folder, 'orders.db')}", "orders")
        self.parts.push_async_callback(self.database.close)
        await migrate(self.database, "runtime", MIGRATIONS)
        await migrate(self.database, "test", [RESULTS])
        self.server: NatsServer = await self.parts.enter_async_context(nats_server())
        self.up = True
        self.orders: OrdersProcess = await self.parts.enter_async_context(
            publishing(self.database, self.server.url)
        )
        await self._receive()

    async def _receive(self) -> None:
        if not self.receives:
            self.receives = True
            reading = record_of(self.database)
            await self.receiver.enter_async_context(
                receiving(self.database, self.server.url, {OrderNoteAdded: _handle}, record=reading)
            )

    async def _end(self) -> None:
        await self.receiver.aclose()
        self.receiver = AsyncExitStack()
        self.receives = False

    @rule(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=8), pause=st.booleans())
    def publish(self, keys: list[str], pause: bool) -> None:
        self.run(self.orders.append(*map(note, keys)))
        for key in keys:
            self.published[key] = self.published.get(key, 0) + 1
        if pause:
            self.run(asyncio.sleep(0.1))

    @precondition(lambda self: self.up)
    @rule()
    def purge(self) -> None:
        async def work() -> None:
            async with self.server.jetstream() as jetstream:
                with suppress(NotFoundError):
                    await jetstream.purge_stream(STREAM)

        self.run(work())

    @precondition(lambda self: self.up)
    @rule(back=st.integers(0, 5))
    def delete_one(self, back: int) -> None:
        async def work() -> None:
            async with self.server.jetstream() as jetstream:
                with suppress(NotFoundError, APIError):  # There is no such message.
                    last = (await jetstream.stream_info(STREAM)).state.last_seq
                    await jetstream.delete_msg(STREAM, max(1, last - back))

        self.run(work())

    @rule()
    def stop_receiver(self) -> None:
        self.run(self._end())

    @rule()
    def start_receiver(self) -> None:
        self.run(self._receive())

    @rule()
    def make_copy(self) -> None:
        self.copy = self.run(Copy(self.database).make())

    @precondition(lambda self: self.copy is not None)
    @rule()
    def restore_copy(self) -> None:
        async def work() -> None:
            assert self.copy is not None
            await self._end()
            await self.copy.restore()
            await self._receive()

        self.run(work())

    @rule()
    def stop_or_start_broker(self) -> None:
        if self.up:
            self.server.kill()
        else:
            self.run(self.server.start())
        self.up = not self.up

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                self.run(self._check())
            finally:
                self.run(self._end())
                self.run(self.parts.aclose())
                self.runner.close()

    async def _check(self) -> None:
        if not self.up:
            await self.server.start()
        await self._receive()
        total = sum(self.published.values())

        async def all_handled() -> bool:
            count = "SELECT COUNT(*) FROM results"
            return bool(await self.database.read(lambda tx: tx.value(count)) >= total)

        await until(all_handled, "all events")
        if total:
            async with self.server.jetstream() as jetstream:
                await until(lambda: caught_up(self.database, jetstream), "the broker's events")
        rows = await self.database.read(
            lambda tx: tx.all("SELECT id, text FROM results ORDER BY rowid")
        )
        seen: dict[str, list[int]] = {}
        for row in rows:
            seen.setdefault(row["id"], []).append(int(row["text"]))
        assert seen == {key: list(range(1, last + 1)) for key, last in self.published.items()}


@contextmanager
def _hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(pull, "HEARTBEAT", 0.2)
        patch.setattr(inbox, "AUDIT", 0.2)
        patch.setattr(inbox, "GRACE", 0.2)
        patch.setattr(audit, "RETRY", 0.2)
        patch.setattr(publisher, "CHECK", 0.2)
        yield


def test_every_event_has_one_effect_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, purge, delete, stop, restore, cut off in any order: nothing is lost or doubled."""
    with _hasty(monkeypatch):
        run_state_machine_as_test(
            Losses,
            settings=settings(
                max_examples=5,
                stateful_step_count=12,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
