"""The history of an order's saga: what it asked, was answered and wrote; recorded, and replayed.

    python -m tests.services.orders.recording

records the newest version of the definition anew, in every way that a saga can go, against the real
services. Recordings of older versions stay as they are for as long as those versions are known.
"""

import asyncio
import base64
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

from accord.errors import ServiceError
from accord_runtime import saga
from accord_runtime.database import Database, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events.outbox import Outbox, of_key
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import MIGRATIONS
from accord_runtime.saga import Saga, Sagas, state_machine
from accord_runtime.saga.orchestrator import QUEUE, load
from accord_runtime.work import table
from accord_runtime.work.executor import Executor, Permanent
from accord_runtime.work.table import Work
from services.orders import domain, store
from services.orders.bulk import cancel
from services.orders.steps import OrderSteps
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.services.orders.books import behave
from tests.support.clock import Clock
from tests.support.shop import Shop, order_request, running_shop

FOLDER: Final = Path(__file__).with_name("recorded")
STATUS: Final = "grpc-status-details-bin"
MOST: Final = 30
"""Attempts of one saga."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done to a saga from outside."""

    attempt: int
    """The number, from 1, of the attempt at which it is done."""
    what: str
    """cancel, skip, abandon or compensate."""
    during: bool = False
    """Whether it commits before the outcome of the attempt does, and not before the attempt."""


@dataclass(slots=True)
class Recording:
    """One saga, from its beginning to its end."""

    way: str
    version: int
    placed: dict[str, Any]
    card_token: str
    acts: list[Act]
    calls: list[dict[str, Any]] = field(default_factory=list)
    """In order: RPC, key, request, and what was answered: a message, or code and status."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """As the saga keeps it, without its times."""
    end: str = ""
    """The phase that it ended in."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """What the order was told: type and content."""

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """One that was kept."""
        values = json.loads(path.read_text())
        return cls(**{**values, "acts": [Act(**act) for act in values["acts"]]})

    def write(self) -> None:
        """Keep it."""
        folder = FOLDER / f"order-{self.version}"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / f"{self.way.replace(' ', '-')}.json").write_text(text + "\n")


class Driver:
    """Carries one saga through, an attempt at a time, and does to it what is to be done.

    Args:
        database: where the order is.
        channel: name of a service -> where its calls are made.
        recording: what is done; what happens is added to it.
        before: is told the number of each attempt.
    """

    def __init__(
        self,
        database: Database,
        channel: Callable[[str], Any],
        recording: Recording,
        before: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._recording = recording
        self._before = before
        self._id = str(recording.placed["orderId"])
        self._outbox = Outbox(lambda: None, lambda key: None)
        self._clock = Clock()
        executor = Executor(database, "recorded", self._clock)
        self._sagas = Sagas(database, executor, self._clock)
        mesh = SimpleNamespace(channel=channel)
        runtime: Any = SimpleNamespace(mesh=mesh, database=database, outbox=self._outbox)
        self._sagas.register(OrderSteps(runtime).definition())
        self._handle = executor._queues[QUEUE].handler

    async def drive(self) -> None:
        """From its beginning to its end."""
        await self._database.write(self._place)
        for attempt in range(1, MOST):
            if self._before is not None:
                await self._before(attempt)
            for act in self._due(attempt, during=False):
                await self._database.write(lambda tx, act=act: self._do(tx, act))  # type: ignore[misc]
            if (await self._saga()).position.ended:
                break
            await self._attempt(attempt)
        ended = await self._saga()
        kept = json.loads(ended.history)
        self._recording.history = [{**entry, "at": 0} for entry in kept]
        self._recording.end = ended.position.phase
        events = await self._database.read(lambda tx: of_key(tx, self._id))
        self._recording.events = [
            {"type": event.type, "event": MessageToDict(event.message())} for event in events
        ]

    def _place(self, tx: Tx) -> None:
        placed = ParseDict(self._recording.placed, OrderPlaced())
        store.place(tx, self._outbox, placed, self._recording.card_token)
        definition = self._sagas._definitions.get(("order", self._recording.version))
        assert definition is not None, "a version that has recordings is not known any more"
        self._sagas.start(tx, definition, self._id)
        tx.execute("UPDATE work SET lease_until = 0")

    async def _attempt(self, number: int) -> None:
        (work,) = await self._database.write(self._claim)
        try:
            effect = await self._handle(work)
        except (ServiceError, grpc.RpcError, Permanent):
            # It may be tried again at once, or by whoever skips it.
            parked = any(act.what == "skip" for act in self._due(number + 1, during=False))
            retry_at = None if parked else self._clock()
            await self._database.write(
                lambda tx: table.fail(tx, work, "recorded", "failed", self._clock(), retry_at)
            )
            return

        def write(tx: Tx) -> None:
            for act in self._due(number, during=True):
                self._do(tx, act)
            table.complete(tx, work, "recorded", effect)

        await self._database.write(write)

    def _claim(self, tx: Tx) -> list[Work]:
        return table.claim(tx, QUEUE, "recorded", self._clock(), 1, lease=20.0)

    def _due(self, attempt: int, *, during: bool) -> list[Act]:
        acts = self._recording.acts
        return [act for act in acts if act.attempt == attempt and act.during == during]

    def _do(self, tx: Tx, act: Act) -> None:
        saga = load(tx, self._id)
        assert saga is not None
        definition = self._sagas.definition(saga)
        assert definition is not None
        step = definition.steps[saga.position.step]
        if act.what == "cancel":
            with contextlib.suppress(ServiceError):  # It may be too late, and then it goes on.
                cancel(tx, self._outbox, self._sagas, self._id, "changed my mind")
        elif act.what == "compensate":
            definition.cancelled(tx, self._id)
            self._sagas.cancel(tx, self._id)
        else:
            after = state_machine.abandoned(saga.position)
            if act.what == "skip":
                if step.skipped is not None and saga.position.phase is state_machine.Phase.FORWARD:
                    step.skipped(tx, self._id)
                after = state_machine.succeeded(
                    definition.steps, saga.position, cancelled=saga.cancelled
                )
            tx.execute("DELETE FROM work WHERE key = :id", {"id": self._id})
            word = "skipped" if act.what == "skip" else "abandoned"
            self._sagas.advance(tx, saga, after, word)

    async def _saga(self) -> Saga:
        found = await self._database.read(lambda tx: load(tx, self._id))
        assert found is not None
        return found


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Recorder:
    """A channel that writes down what is called over it."""

    def __init__(self, channel: Any, recording: Recording) -> None:
        self._channel = channel
        self._calls = recording.calls

    def unary_unary(self, path: str, **serializers: Any) -> Callable[..., Any]:
        """As gRPC's."""
        bare = self._channel.unary_unary(path, **serializers)

        async def call(request: Any, *, metadata: Any) -> Any:
            raw = serializers["request_serializer"](request)
            found = {"rpc": path, "key": dict(metadata)["idempotency-key"], "request": _b64(raw)}
            found["shown"] = MessageToDict(request)
            self._calls.append(found)
            try:
                answer = await bare(request, metadata=metadata)
            except grpc.RpcError as error:
                failed: Any = error
                trailing = dict(failed.trailing_metadata() or ())
                found["code"] = failed.code().name
                found["details"] = failed.details()
                found["status"] = _b64(trailing.get(STATUS, b""))
                raise
            found["answer"] = _b64(answer.SerializeToString(deterministic=True))
            return answer

        return call


class Replayer(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers calls as they were recorded, in that order, and none that was not.

    Attributes:
        wrong: what was asked otherwise.
    """

    def __init__(self, recording: Recording) -> None:
        self._left = list(recording.calls)
        self.wrong: list[str] = []

    def service(self, details: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Any method."""
        key = dict(details.invocation_metadata).get("idempotency-key", "")

        async def answer(raw: bytes, context: Any) -> bytes:
            asked = {"rpc": details.method, "key": key, "request": _b64(raw)}
            if not self._left or any(self._left[0][name] != asked[name] for name in asked):
                wanted = self._left[0] if self._left else "nothing"
                self.wrong.append(f"{asked} is asked instead of {wanted}")
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not as recorded")
            found = self._left.pop(0)
            if "code" in found:
                context.set_trailing_metadata(((STATUS, base64.b64decode(found["status"])),))
                await context.abort(grpc.StatusCode[found["code"]], found["details"])
            return base64.b64decode(found["answer"])

        return grpc.unary_unary_rpc_method_handler(answer)

    def missing(self) -> list[str]:
        """Recorded calls that were not made."""
        return [f"{call['rpc']} was not called" for call in self._left]


@asynccontextmanager
async def orders_database(folder: Path) -> AsyncIterator[Database]:
    """An empty database of orders."""
    database = await open_database(f"sqlite:///{folder}/orders.db", "orders")
    try:
        await migrate(database, "runtime", MIGRATIONS)
        await migrate(database, "orders", [*saga.MIGRATIONS, *store.MIGRATIONS])
        yield database
    finally:
        await database.close()


async def replay(recorded: Recording, folder: Path) -> tuple[Recording, list[str]]:
    """The saga as today's code carries it through, given the answers of then.

    Returns:
        It, and which calls are not those of then.
    """
    again = Recording(
        recorded.way, recorded.version, recorded.placed, recorded.card_token, recorded.acts
    )
    replayer = Replayer(recorded)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((replayer,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with (
            orders_database(folder) as database,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            await Driver(database, lambda name: channel, again).drive()
    finally:
        await server.stop(None)
    return again, replayer.wrong + replayer.missing()


@dataclass(frozen=True, slots=True)
class Script:
    """How a way is brought about."""

    acts: tuple[Act, ...] = ()
    request: dict[str, Any] = field(default_factory=dict)
    quantity: int = 2
    party: "outside.Party.ValueType" = outside.PARTY_UNSPECIFIED
    """Who misbehaves."""
    behavior: "outside.Behavior.ValueType" = outside.BEHAVIOR_FAIL
    until: int = MOST
    """The attempt before which it mends its ways."""


CARD: Final = outside.PARTY_CARD_PROCESSOR
CARRIER: Final = outside.PARTY_CARRIER
LOST: Final = outside.BEHAVIOR_LOSE_ANSWER

WAYS: Final[dict[str, Script]] = {
    "confirmed": Script(),
    "confirmed after lost answers of the card processor": Script(
        party=CARD, behavior=LOST, until=4
    ),
    "confirmed after lost answers of the carrier": Script(party=CARRIER, behavior=LOST, until=6),
    "rejected": Script(quantity=5000),
    "declined": Script(request={"card": "tok_declined"}),
    "no carrier": Script(request={"country": "AQ"}),
    "cancelled before reserve": Script((Act(1, "cancel"),)),
    "cancelled during reserve": Script((Act(1, "cancel", during=True),)),
    "cancelled before charge": Script((Act(2, "cancel"),)),
    "cancelled during charge": Script((Act(2, "cancel", during=True),)),
    "cancelled after a charge whose answer was lost": Script(
        (Act(3, "cancel"),), party=CARD, behavior=LOST, until=3
    ),
    "cancelled while its card is declined": Script(
        (Act(2, "cancel", during=True),), request={"card": "tok_declined"}
    ),
    "cancelled before start_shipping": Script((Act(3, "cancel"),)),
    "cancelled during start_shipping": Script((Act(3, "cancel", during=True),)),
    "cancelled too late": Script((Act(4, "cancel"), Act(5, "cancel", during=True))),
    "turned back by an operator": Script((Act(3, "compensate"),)),
    "shipped by hand": Script((Act(5, "skip"),), party=CARRIER),
    "stock committed by hand": Script((Act(5, "skip"),)),
    "refunded by hand": Script((Act(5, "skip"),), request={"country": "AQ"}),
    "abandoned before charge": Script((Act(2, "abandon"),)),
    "abandoned at the carrier": Script((Act(5, "abandon"),), party=CARRIER),
}


async def record(shop: Shop, way: str, script: Script) -> Recording:
    """Take one saga this way."""
    await shop.product("tea", 499, on_hand=1000)
    customer = await shop.customer()
    asked = order_request(customer, {"tea": script.quantity}, **script.request)
    placed = OrderPlaced(
        order_id=uuid7(),
        customer_id=customer,
        items=asked.items,
        total=domain.total(asked.items),
        ship_to=asked.ship_to,
    )
    recording = Recording(way, 1, MessageToDict(placed), asked.card_token, list(script.acts))

    async def before(attempt: int) -> None:
        if script.party and attempt in (1, script.until):
            normal = attempt == script.until
            await behave(shop, script.party, outside.BEHAVIOR_NORMAL if normal else script.behavior)

    database = shop.runtimes["orders"].database
    channel = lambda name: Recorder(shop.channel(name), recording)  # noqa: E731
    await Driver(database, channel, recording, before).drive()
    await before(script.until)
    return recording


async def main() -> None:
    """Record every way."""
    names = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")
    with tempfile.TemporaryDirectory() as folder:
        async with running_shop(Path(folder), *names) as shop:
            # Its database is the driver's: nobody else works on it.
            await shop.runtimes["orders"].executor.drain()
            for way, script in WAYS.items():
                recording = await record(shop, way, script)
                recording.write()
                steps = [f"{entry['step']} {entry['outcome']}" for entry in recording.history]
                print(f"{way}: {', '.join(steps)} -> {recording.end}")


if __name__ == "__main__":
    asyncio.run(main())
