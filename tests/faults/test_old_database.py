"""One database is older than all others: what heals by itself, and what the books say is missing.

`shopctl backup` copies the database while the shop runs, `shopctl restore` puts it back later. The
other services, the card processor and the carrier are ahead of it then.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from services import topology
from shopctl.replay.model import Fate, PlannedOrder
from tests.faults.conftest import Fault
from tests.faults.scale import ORDERS, SECONDS
from tests.support.wait import until

IN_CI: Final = ("orders",)

RECORDS: Final = ("orders", "payments", "inventory", "shipping")
"""They have events of their own."""

SERVICES: Final = [
    pytest.param(name, marks=() if name in IN_CI else pytest.mark.full)
    for name in topology.SERVICES
    if name != "sandbox"  # that is the world outside, whose ledgers are never put back
]


def missing(service: str, lost: list[PlannedOrder]) -> Iterator[tuple[str, str, str]]:
    """Subject, book and what of each difference after a service has lost what it did for orders.

    None for notifications, accounting and analytics, which take from the records of others what
    their copies lack, and for customers, of whom none has come since.
    """
    for order in lost:
        subject, good = f"order {order.number}", order.fate is Fate.GOOD
        if service == "orders":
            yield subject, "orders", "on record"
        elif service == "payments" and good:
            yield subject, "payments", "captured"
        elif service == "shipping" and good:
            yield subject, "shipping", "units shipped"
        elif service == "inventory" and good:
            yield from ((line.sku, "inventory", "left, reserved") for line in order.lines)


def sales(database: Path) -> int:
    """Of how many orders analytics knows."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        sql = "SELECT COUNT(*) FROM sale JOIN view_state USING (generation)"
        [(orders,)] = connection.execute(sql)
    return int(orders)


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
async def test_one_database_is_put_back(fault: Fault, service: str, tmp_path: Path) -> None:
    """What was done since heals, or every order of it is named; later ones are well."""
    name = f"an old database ({service})"
    archive = str(tmp_path / "old.zip")
    async with fault(name, 3 * ORDERS, by_hand=[service]) as scene:
        shop, orders = scene.shop, scene.orders
        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        [copy] = await shop.listed("backup", archive, "--service", service)
        assert (copy["position"] > 0) == (
            service in ("orders", "payments", "shipping", "inventory")
        )
        await orders.place(ORDERS)
        await orders.settled(SECONDS)

        scene.watch.began()
        shop.parts[service].kill()
        [restored] = await shop.listed("restore", archive, "--service", service, "--yes")
        assert restored["kept"]
        await shop.parts[service].start()
        scene.watch.over()

        await orders.place(ORDERS)
        await orders.settled(SECONDS)
        scene.watch.right()
        expected = set(missing(service, list(orders.plan.orders[ORDERS : 2 * ORDERS])))
        if service == "analytics":  # the books do not ask it
            view = shop.database("analytics")
            await until(lambda: sales(view) == 3 * ORDERS, "each order once", seconds=SECONDS)
        if not expected:
            await orders.check()
            return
        verdict = await orders.verdict()
        found = {
            (each.subject.split(" (")[0], each.book, each.what) for each in verdict.differences
        }
        assert found == expected
        assert not await shop.listed("work", "list")
