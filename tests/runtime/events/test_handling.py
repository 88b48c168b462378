"""Events that are handled as soon as they have come, and what becomes of those that fail."""

from accord_runtime.database import Database, Tx
from accord_runtime.events.inbox import Received
from accord_runtime.work.table import Effect
from shop.orders.v1.events_pb2 import OrderNoteAdded
from tests.runtime.events.support import receiving
from tests.runtime.events.test_inbox import has, make_stream, send
from tests.runtime.work.support import result, results
from tests.support.nats import NatsServer
from tests.support.wait import until


class Handler:
    """Notes by which way each event was handled, and fails to write one key."""

    def __init__(self, database: Database, refused: str = "") -> None:
        self._database = database
        self._refused = refused
        self.seen: list[tuple[str, int]] = []
        self.works: list[int] = []

    async def __call__(self, event: Received[OrderNoteAdded]) -> Effect:
        done = result(event.event_id)

        def effect(tx: Tx) -> None:
            self.works.append(tx.value("SELECT COUNT(*) FROM work"))
            done(tx)
            if event.key == self._refused:
                raise ArithmeticError("not this one")
            self.seen.append((event.key, event.sequence))

        return effect


async def test_what_is_handled_at_once_is_no_work(
    record: Database, broker_server: NatsServer
) -> None:
    """Where one process has the database, effects commit with the receipt, in order, and once."""
    handler = Handler(record)
    async with (
        broker_server.jetstream() as jetstream,
        receiving(record, broker_server.url, {OrderNoteAdded: handler}, at_once=True),
    ):
        await make_stream(jetstream)
        for number in (1, 2, 3, 3, 2):
            await send(jetstream, "k", number)
        await send(jetstream, "l", 1)
        await until(has(record, 4), "the events")
    assert [number for key, number in handler.seen if key == "k"] == [1, 2, 3]
    assert len(await results(record)) == 4
    if not record.shared:
        assert set(handler.works) == {0}


async def test_what_fails_at_once_becomes_work(record: Database, broker_server: NatsServer) -> None:
    """An event whose effect fails is parked with those of its key; what came with it is handled."""
    handler = Handler(record, "poison")
    async with broker_server.jetstream() as jetstream:
        await make_stream(jetstream)
        for key, number in (("a", 1), ("poison", 1), ("b", 1), ("poison", 2), ("a", 2)):
            await send(jetstream, key, number)
        async with receiving(record, broker_server.url, {OrderNoteAdded: handler}, at_once=True):
            await until(has(record, 3), "the other events")
            await send(jetstream, "c", 1)
            await until(has(record, 4), "one that came later")
    assert set(await results(record)) == {"a-1", "a-2", "b-1", "c-1"}
    waiting = await record.read(lambda tx: tx.all("SELECT key, seq FROM work ORDER BY seq"))
    assert [(row["key"], row["seq"]) for row in waiting] == [("poison", 1), ("poison", 2)]
