"""Orders that are placed around a fault, and the oracle that judges what became of them.

What is ordered comes from TPC-H and so does what the books must say, as in `shopctl replay`; the
mails are read from the spool of the mail server, and not from what notifications says of them.
"""

import asyncio
import dataclasses
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Final

import grpc

from accord.errors import ServiceError
from accord.ops.v1.work_pb2 import WORK_STATE_PARKED, ListWorkRequest
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from services.topology import SERVICES
from shop.orders.v1.orders_pb2 import GetOrderRequest
from shopctl.client import Shop as Caller
from shopctl.errors import CommandError
from shopctl.replay.books import BookReader
from shopctl.replay.clients import Clients, connect
from shopctl.replay.driver import Driver, Followed, load
from shopctl.replay.model import Expected, Plan, PlannedOrder
from shopctl.replay.progress import Tally
from shopctl.replay.reconcile import Verdict, reconcile
from shopctl.replay.tpch import Tpch
from tests.faults.processes import Shop
from tests.support.wait import until

CALLS: Final = 8
"""Calls at a time that load the shop or read its books."""

SCALE_FACTOR: Final = 0.01
"""Of TPC-H: enough customers for most orders to have one of their own."""

CARD: Final = "tok_visa"


class Orders:
    """The orders of one test, placed one after the other in shares.

    Attributes:
        plan: all of them.
        followed: those that have ended: number -> what was seen.
    """

    def __init__(
        self,
        shop: Shop,
        clients: Clients,
        plan: Plan,
        expected: Expected,
        customers: Mapping[int, str],
    ) -> None:
        self.plan = plan
        self.followed: dict[int, Followed] = {}
        self.clients = clients
        self._shop = shop
        self._expected = expected
        self._customers = customers
        self._waiting = iter(plan.orders)
        self._under_way: list[asyncio.Task[None]] = []

    async def place(self, count: int, seconds: float = 0.0) -> None:
        """Place the next orders, evenly over this time, and do not wait for their ends."""
        for _ in range(count):
            task = asyncio.create_task(self._one(next(self._waiting)))
            self._under_way.append(task)
            await asyncio.sleep(seconds / count)

    async def ended(self, seconds: float) -> None:
        """Wait until every order that was placed has ended."""
        _, late = await asyncio.wait(self._under_way, timeout=seconds)
        assert not late, f"{len(late)} orders have not ended after {seconds:g} s"
        await asyncio.gather(*self._under_way)

    async def told(self, seconds: float, pills: Collection[int] = ()) -> None:
        """Wait until a mail says how each order ended that has, but for the `pills`."""
        wanted = {order.order_id for number, order in self.followed.items() if number not in pills}
        await until(
            lambda: wanted <= spooled(self._shop.mails).keys(),
            "a mail for each order",
            seconds=seconds,
        )

    async def idle(self, seconds: float, parked: int = 0) -> None:
        """Wait until no work is left in any service but so many parked rows."""
        # As `shopctl work list` does, without a process for each time.
        caller = Caller(self._shop.home, None, as_json=True)

        async def left() -> bool:
            states: Counter[int] = Counter()
            try:
                for name in SERVICES:
                    async for item in caller.rows(
                        name, WorkServiceStub, "ListWork", ListWorkRequest()
                    ):
                        states[item.state] += 1
            except CommandError:
                return False
            return states == Counter({WORK_STATE_PARKED: parked} if parked else {})

        try:
            await until(left, "no work is left", seconds=seconds)
        finally:
            await caller.close()

    async def settled(self, seconds: float, pills: Collection[int] = ()) -> None:
        """Wait until all is over: orders, mails, and work but for that of the `pills`."""
        await self.ended(seconds)
        await self.told(seconds, pills)
        await self.idle(seconds, len(pills))

    async def verdict(self) -> Verdict:
        """What the books say of all orders; those that orders does not know are not on record."""
        assert self.followed.keys() == self._expected.orders.keys(), "not all orders have ended"
        known = dict(self.followed)

        async def ask(entry: tuple[int, Followed]) -> None:
            number, order = entry
            request = GetOrderRequest(order_id=order.order_id)
            try:
                await self.clients.orders.GetOrder(request)
            except grpc.RpcError as error:
                if ServiceError.from_rpc(error).reason != "NOT_FOUND":
                    raise
                del known[number]

        await self.clients.for_each(self.followed.items(), ask)
        reader = BookReader(known, self.clients)
        books = await reader.read(self.plan.run, self._customers.values())
        return reconcile(self._expected, books)

    async def check(self, pills: Collection[int] = ()) -> None:
        """All invariants: see `policy.md`. `pills`: orders whose mail cannot be sent.

        Raises:
            AssertionError: one does not hold.
        """
        verdict = await self.verdict()
        unsent = {f"order {number} ({self.order_id(number)})" for number in pills}
        wrong = Counter(
            f"{each.book}, {each.what}: {each.actual} instead of {each.expected}"
            for each in verdict.differences
            if each.subject not in unsent or each.what != "mails sent"
        )
        wrong.update(
            f"{check.book}, {check.what}: {check.actual} {check.unit} instead of {check.expected}"
            for check in verdict.checks
            if not check.agrees and not (pills and check.what == "sent")
        )
        wrong.update(self._wrong_mails(pills))
        parked = await self._shop.listed("work", "list", "--state", "parked")
        if len(parked) != len(pills):
            wrong.update(f"parked: {row['service']} {row['queue']}" for row in parked)
        for phase in ("forward", "backward"):
            rows = await self._shop.listed("saga", "list", "--phase", phase)
            wrong.update(f"saga {phase} at {row['step']}" for row in rows)
        assert not wrong, "\n".join(f"{count} x {what}" for what, count in wrong.items())

    def _wrong_mails(self, pills: Collection[int]) -> Iterator[str]:
        """What is wrong in the spool: one mail for each order, to whom it belongs, and no other."""
        mails = spooled(self._shop.mails)
        for number in sorted(self.followed.keys() - pills):
            found = mails.pop(self.order_id(number), Counter())
            recipient = self.plan.buyers[self.plan.orders[number - 1].custkey].email
            if found != {recipient: 1}:
                yield f"spool: {found.total()} mails about an order"
        yield from (f"spool: a mail about {order_id}, which nobody placed" for order_id in mails)

    def order_id(self, number: int) -> str:
        """What the shop calls an order that has ended."""
        return self.followed[number].order_id

    def by_the_first_customer(self) -> list[int]:
        """The orders of whoever has placed the first one."""
        first = self.plan.orders[0].custkey
        return [order.number for order in self.plan.orders if order.custkey == first]

    async def _one(self, order: PlannedOrder) -> None:
        alone = dataclasses.replace(self.plan, orders=[order])
        driver = Driver(alone, self._customers, CARD, self.clients)
        self.followed.update(await driver.drive())

    async def close(self) -> None:
        """End what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)


def spooled(folder: Path) -> dict[str, Counter[str]]:
    """What the mail server was given: order -> recipient -> mails, told apart by Message-ID."""
    found: dict[str, Counter[str]] = {}
    for path in folder.glob("*.eml") if folder.exists() else ():
        mail = message_from_bytes(path.read_bytes(), policy=policy.default)
        order_id = next(word for word in mail["Subject"].split() if word.count("-") == 4)
        found.setdefault(order_id, Counter())[mail["To"].addresses[0].addr_spec] += 1
    return found


@asynccontextmanager
async def orders(
    shop: Shop, count: int, *, email: str = "", declined: float = 10.0, short: float = 10.0
) -> AsyncIterator[Orders]:
    """Draw orders, and put their customers and products into the shop.

    Args:
        shop: which is running.
        count: how many.
        email: put before the address of who has placed the first one.
        declined: percent whose card is declined.
        short: percent that lack stock.
    """
    run = secrets.token_hex(4)
    with Tpch(SCALE_FACTOR) as tpch:
        plan = tpch.draw(count, declined=declined, short=short, seed=20_26, run=run)
        expected = tpch.expected()
    if email:
        buyer = plan.buyers[plan.orders[0].custkey]
        buyer.email = f"{email}{buyer.email}"
    tally = Tally(count)
    async with connect(shop.offset, shop.home, tally, CALLS) as clients:
        placed = Orders(shop, clients, plan, expected, await load(plan, clients))
        try:
            yield placed
        finally:
            await placed.close()
