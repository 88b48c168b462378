"""An order is placed, and a process dies at one named point of its way: what became of it?

`Points` arms the points of `points/sitecustomize.py`, `FLOWS` are the ways of an order, and
`Caller` places one and judges it by the books of everybody: orders, payments, inventory, the ledger
of the card processor and the carrier, and the spool of the mail server.
"""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

import accord
from accord.ops.v1 import saga_pb2, work_pb2
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from accord_runtime.grpc.ids import uuid7
from services import topology
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.orders.v1 import orders_pb2 as pb
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2
from shop.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from tests.services.orders.books import ENDED, Ledger, ledger, stock, updates
from tests.support.mesh_process import MeshProcess
from tests.support.shop import Shop, order_request
from tests.support.wait import until

T = TypeVar("T")

FOLDER: Final = Path(__file__).with_name("points")
SECONDS: Final = 90.0
"""So long an order may take to end, with a process killed on its way."""
QUIET: Final = 1.0
"""Seconds without work after which an order has gone all of its way."""
PRICE: Final = 499


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A named point of a service."""

    service: str
    name: str
    number: int
    """Which time that it is passed, from 1."""

    def __str__(self) -> str:
        return f"{self.service}: {self.name} #{self.number}"


class Points:
    """The points of a running shop. `environment` is what its processes need."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._serials = itertools.count()
        path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
        self.environment: Mapping[str, str] = {"PYTHONPATH": path, "MESH_CRASH_POINTS": str(folder)}

    def arm(self, point: Point) -> None:
        """Whoever passes it from now on, so many times, dies."""
        (self._folder / "fired").unlink(missing_ok=True)
        self._write(point.service, point.name, point.number)

    def fired(self) -> bool:
        """Whether somebody has died."""
        return (self._folder / "fired").exists()

    def disarm(self) -> None:
        """Nobody dies any more."""
        (self._folder / "armed").unlink(missing_ok=True)

    def record(self) -> None:
        """Have everybody write down what is passed from now on."""
        (self._folder / "passed").unlink(missing_ok=True)
        self._write("*", "*", "*")

    def recorded(self) -> list[Point]:
        """What was passed, and stop."""
        self.disarm()
        lines = (self._folder / "passed").read_text().splitlines()
        fields = [line.split("\t") for line in lines]
        return sorted({Point(service, name, int(number)) for service, name, number in fields})

    def _write(self, *fields: object) -> None:
        new = self._folder / "new"
        new.write_text("\t".join(map(str, (next(self._serials), *fields))))
        new.rename(self._folder / "armed")


class Caller(Shop):
    """A client of the shop without policies: what fails is tried again until it is answered."""

    def __init__(self, mesh: MeshProcess) -> None:
        super().__init__(mesh.home, mesh.offset, "", "")
        self._process = mesh
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.customer_id = ""
        self.confirmed = 0
        """Orders that have ended well."""
        self._mails: dict[Path, str] = {}

    def channel(self, name: str) -> grpc.aio.Channel:
        """A bare one: its answers are nobody's cache, and no breaker opens."""
        if name not in self._channels:
            # Whoever was killed is asked again soon, and not when a long back-off is over.
            options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_retries", 0)]
            address = topology.address(name, self.offset)
            self._channels[name] = grpc.aio.insecure_channel(address, options=options)
        return self._channels[name]

    async def close(self) -> None:
        """Give the connections up."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))
        await super().close()

    async def answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a call that may be repeated; a refusal is one, too."""
        found: list[T] = []

        async def attempt() -> bool:
            try:
                async with asyncio.timeout(10):
                    found.append(await call())
            except TimeoutError:
                return False
            except grpc.RpcError as error:
                failure = accord.failure_of(error)
                if failure is not None and failure.refusal:
                    raise
                await asyncio.sleep(0.05)
            return bool(found)

        await until(attempt, "an answer", seconds=SECONDS)
        return found[0]

    async def place(self, **request: Any) -> str:
        """Place an order of one unit, under one key however often it is sent."""
        key = accord.idempotency_key(uuid7())
        asked = order_request(self.customer_id, {"tea": 1}, price=PRICE, **request)
        response = await self.answered(lambda: self.orders.CreateOrder(asked, metadata=key))
        return response.order.order_id

    async def cancel(self, order_id: str) -> None:
        """Cancel it; that may be too late."""
        key = accord.idempotency_key(uuid7())
        request = pb.CancelOrderRequest(order_id=order_id)
        try:
            await self.answered(lambda: self.orders.CancelOrder(request, metadata=key))
        except grpc.RpcError as error:
            if accord.ServiceError.from_rpc(error).reason not in ("TOO_LATE", "ORDER_ENDED"):
                raise

    async def payment(self, order_id: str) -> "payments_pb2.PaymentState.ValueType":
        """The state of its payment; UNSPECIFIED if there is none."""
        request = payments_pb2.GetPaymentRequest(order_id=order_id)
        payments = PaymentServiceStub(self.channel("payments"))
        try:
            answer = await self.answered(lambda: payments.GetPayment(request))
        except grpc.RpcError as error:
            if accord.ServiceError.from_rpc(error).reason != "NOT_FOUND":
                raise
            return payments_pb2.PAYMENT_STATE_UNSPECIFIED
        return answer.payment.state

    async def gone(self, order_id: str) -> list[pb.StreamOrderUpdatesResponse]:
        """What the order was told, when it has ended and its mail is out."""

        async def story() -> list[pb.StreamOrderUpdatesResponse]:
            return await updates(self, order_id)

        seen = await self.answered(story)
        while seen[-1].status not in ENDED:
            seen = await self.answered(story)
        await until(lambda: self.mails(order_id), "its mail", seconds=SECONDS)
        return seen

    def mails(self, order_id: str) -> int:
        """How many mails about an order are in the spool of the mail server."""
        for path in (self.home / "mails").glob("*.eml"):
            if path not in self._mails:  # Once it is there, it stays as it is.
                self._mails[path] = path.read_text()
        return sum(order_id in text for text in self._mails.values())

    async def serving(self) -> None:
        """Wait until everybody serves again."""
        await asyncio.to_thread(self._process.wait_until_serving)

    async def quiet(self, seconds: float) -> None:
        """Give what comes after all work the time to be passed: acknowledgements, positions."""
        await asyncio.sleep(seconds)

    async def idle(self) -> None:
        """Wait until no work is left in any service, and fail if some is parked."""
        for name in topology.SERVICES:

            async def left(name: str = name) -> list[work_pb2.WorkItem]:
                request = work_pb2.ListWorkRequest()
                answer = await WorkServiceStub(self.channel(name)).ListWork(request)
                return list(answer.items)

            async def none(left: Callable[[], Awaitable[Any]] = left) -> bool:
                items = await self.answered(left)
                parked = [item for item in items if item.state == work_pb2.WORK_STATE_PARKED]
                assert not parked, parked
                await asyncio.sleep(0.05 if items else 0.0)
                return not items

            await until(none, f"the end of the work of {name}", seconds=SECONDS)

    async def check(
        self,
        order_id: str,
        seen: list[pb.StreamOrderUpdatesResponse],
        allowed: "frozenset[pb.OrderStatus.ValueType]",
    ) -> None:
        """Everybody's books of one order that has ended, and what it was told."""
        assert [update.sequence for update in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].status in allowed, pb.OrderStatus.Name(seen[-1].status)
        good = seen[-1].status == pb.ORDER_STATUS_CONFIRMED
        self.confirmed += good

        outside = await self.answered(lambda: ledger(self, order_id))
        assert outside.captures <= 1, "charged twice"
        wanted = Ledger(1, PRICE, 1, 1) if good else Ledger(outside.captures, 0, outside.bookings)
        assert outside == wanted

        state = await self.payment(order_id) or payments_pb2.PAYMENT_STATE_REFUNDED
        captured = state == payments_pb2.PAYMENT_STATE_CAPTURED
        assert captured == good, payments_pb2.PaymentState.Name(state)
        settled = (payments_pb2.PAYMENT_STATE_REFUNDED, payments_pb2.PAYMENT_STATE_DECLINED)
        assert captured or state in settled, payments_pb2.PaymentState.Name(state)

        assert self.mails(order_id) == 1, f"{self.mails(order_id)} mails"

    async def check_all(self, on_hand: int, confirmed: int) -> None:
        """What holds when every order has ended."""
        await self.idle()
        assert await self.answered(lambda: stock(self, "tea")) == (on_hand - confirmed, 0)
        sagas = SagaServiceStub(self.channel("orders"))
        for phase in (saga_pb2.SAGA_PHASE_FORWARD, saga_pb2.SAGA_PHASE_BACKWARD):
            request = saga_pb2.ListSagasRequest(phase=phase)
            answer = await self.answered(lambda request=request: sagas.ListSagas(request))  # type: ignore[misc]
            assert not answer.sagas


async def confirmed(caller: Caller) -> str:
    """An order that ends well."""
    return await caller.place()


async def declined(caller: Caller) -> str:
    """An order whose card is declined."""
    return await caller.place(card="tok_declined")


async def choreographed(caller: Caller) -> str:
    """An order that goes on by the services' events, and ends well."""
    return await caller.place(fulfilment=FULFILMENT_CHOREOGRAPHED)


async def choreographed_declined(caller: Caller) -> str:
    """One whose card is declined: what was done is undone by events."""
    return await caller.place(card="tok_declined", fulfilment=FULFILMENT_CHOREOGRAPHED)


async def cancelled(caller: Caller) -> str:
    """An order that is cancelled while its card is being charged."""
    slow = sandbox_pb2.SetBehaviorRequest(
        party=sandbox_pb2.PARTY_CARD_PROCESSOR,
        behavior=sandbox_pb2.BEHAVIOR_DELAY,
        delay=Duration(seconds=1),
        calls=1,
    )
    sandbox = SandboxServiceStub(caller.channel("sandbox"))
    await caller.answered(lambda: sandbox.SetBehavior(slow))
    order_id = await caller.place()
    await until(lambda: caller.payment(order_id), "the charge", seconds=SECONDS)
    await caller.cancel(order_id)
    return order_id


@dataclass(frozen=True, slots=True)
class Flow:
    """A way of an order."""

    go: Callable[[Caller], Awaitable[str]]
    """Places one, and returns its id."""
    ends: "frozenset[pb.OrderStatus.ValueType]"
    """How it may end."""


FLOWS: Final[Mapping[str, Flow]] = {
    "confirmed": Flow(confirmed, frozenset({pb.ORDER_STATUS_CONFIRMED})),
    "declined": Flow(declined, frozenset({pb.ORDER_STATUS_FAILED})),
    "choreographed": Flow(choreographed, frozenset({pb.ORDER_STATUS_CONFIRMED})),
    "choreographed and declined": Flow(choreographed_declined, frozenset({pb.ORDER_STATUS_FAILED})),
    # Who is killed meanwhile may be cancelled too late.
    "cancelled": Flow(cancelled, frozenset({pb.ORDER_STATUS_CANCELLED, pb.ORDER_STATUS_CONFIRMED})),
}
