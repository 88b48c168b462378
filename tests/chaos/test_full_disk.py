"""A full disk: what callers and operators are told, and that all comes right by itself."""

import asyncio
import json
import re
import subprocess
import time
import urllib.request
from collections import Counter
from typing import Any, Final

import grpc
import pytest

import accord
from services import topology
from shop.notifications.v1.notifications_pb2 import ListNotificationsRequest
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import orders_pb2
from tests.chaos.scale import FULL
from tests.support.mesh_process import SHOPCTL, MeshProcess, running_mesh
from tests.support.ports import free_offset
from tests.support.shop import Shop, order_request
from tests.support.small_disk import SmallDisk
from tests.support.wait import until

FULL_FOR: Final = 30.0 if FULL else 12.0
"""Seconds."""
BURST: Final = 40
"""Orders just before."""
PATIENCE: Final = 180.0
"""Seconds for what was refused to be tried again: a saga's back-off and a lease among them."""
PAUSE: Final = 0.15
"""Seconds between two orders."""


def status(mesh: MeshProcess) -> dict[str, dict[str, Any]]:
    """What `shopctl status` says, by process."""
    command = [*SHOPCTL, "status", "--json", "--home", str(mesh.home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {row["name"]: row for row in json.loads(done.stdout)["processes"]}


def committing(name: str, offset: int) -> bool:
    """What the `/metrics` of a service say of its database."""
    port = topology.port(name, offset) + topology.METRICS_DISTANCE
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r"^accord_database_commits(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1]) == 1


def listed(mesh: MeshProcess) -> int:
    """The exit code of an operator's command at the orders."""
    command = [*SHOPCTL, "work", "list", "--service", "orders", "--home", str(mesh.home)]
    return subprocess.run(command, capture_output=True, check=False).returncode


class Customer:
    """Places orders, again and again with the same key until each is taken."""

    def __init__(self, shop: Shop, customer_id: str) -> None:
        self._shop = shop
        self._customer_id = customer_id
        self.orders: dict[str, str] = {}
        """Key -> order."""
        self.answers = Counter[str]()
        """What was answered when an order was not taken."""

    async def place(self, key: str) -> None:
        """One order."""
        request = order_request(self._customer_id, {"tea": 1})
        while key not in self.orders:
            try:
                answer = await self._shop.orders.CreateOrder(
                    request, metadata=accord.idempotency_key(key)
                )
                self.orders[key] = answer.order.order_id
            except grpc.aio.AioRpcError as error:
                failure = accord.failure_of(error)
                self.answers[f"{error.code().name} {failure and failure.reason}"] += 1
                await asyncio.sleep(0.5)

    async def mails(self, order_id: str) -> list[str]:
        """The subjects of the mails that were sent for an order."""
        stub = NotificationServiceStub(self._shop.channel("notifications"))
        answer = await stub.ListNotifications(ListNotificationsRequest(order_id=order_id))
        return [mail.subject for mail in answer.notifications if mail.HasField("sent_at")]

    async def state(self, order_id: str) -> int:
        """How far an order is."""
        answer = await self._shop.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=order_id))
        return int(answer.order.status)


@pytest.mark.slow
async def test_all_comes_right_after_a_full_disk(small_disk: SmallDisk) -> None:
    """No order or mail is missing, refusals are precise, and what is wrong is said meanwhile."""
    offset = free_offset()
    with running_mesh(small_disk.folder / "mesh", offset) as mesh:
        shop = Shop(mesh.home, offset, "", "")
        await shop.product("tea", on_hand=100_000)
        customer = Customer(shop, await shop.customer())
        await customer.place("before")
        # Events are on their way to the broker when the disk fills up.
        placing = [asyncio.create_task(customer.place(f"early-{n}")) for n in range(BURST)]
        await until(lambda: len(customer.orders) > BURST // 2, "orders to be taken")
        full = asyncio.create_task(asyncio.to_thread(small_disk.fill_for, FULL_FOR))
        said: dict[str, float] = {}
        began = time.monotonic()
        while not full.done():
            placing.append(asyncio.create_task(customer.place(f"key-{len(placing)}")))
            if len(placing) % 10 == 1:
                for row in (await asyncio.to_thread(status, mesh)).values():
                    if row["state"] != "serving" or row["reason"]:
                        text = f"{row['name']} {row['state']}: {row['reason']}"
                        said.setdefault(text[:100], time.monotonic() - began)
                for name in topology.SERVICES:
                    if not await asyncio.to_thread(committing, name, offset):
                        said.setdefault(f"/metrics of {name}: no commits", time.monotonic() - began)
            await asyncio.sleep(PAUSE)
        readable = await customer.state(customer.orders["before"])
        operated = await asyncio.to_thread(listed, mesh)
        small_disk.free()
        freed = time.monotonic()

        async def serving() -> bool:
            rows = await asyncio.to_thread(status, mesh)
            return all(row["state"] == "serving" and not row["reason"] for row in rows.values())

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*placing)
        placed = time.monotonic() - freed
        confirmed = orders_pb2.ORDER_STATUS_CONFIRMED
        for order_id in customer.orders.values():

            async def over(order_id: str = order_id) -> bool:
                return await customer.state(order_id) == confirmed and bool(
                    await customer.mails(order_id)
                )

            await until(over, f"the mail of {order_id}", seconds=PATIENCE)
        mailed = time.monotonic() - freed
        await until(serving, "everything to serve", seconds=60)
        sent = Counter(
            [len(await customer.mails(order_id)) for order_id in customer.orders.values()]
        )
        print(
            f"\n{len(customer.orders)} orders; full for {FULL_FOR:g} s; answers {customer.answers}"
            f"\nall taken {placed:.1f} s after it was free, all mails sent after {mailed:.1f} s,"
            f" serving after {time.monotonic() - freed:.1f} s; restarts:"
            f" { {r.name: r.restarts for r in mesh.records().values() if r.restarts} }"
        )
        for text, after in said.items():
            print(f"  {after:5.1f} s  {text}")

        await shop.mesh.close()
    assert set(sent) == {1}
    assert readable
    assert operated == 0
    assert any("not serving: " in text and "full" in text for text in said)
    assert any("no commits" in text for text in said)
    codes = {answer.partition(" ")[0] for answer in customer.answers}
    assert codes <= {"UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED"}, customer.answers
