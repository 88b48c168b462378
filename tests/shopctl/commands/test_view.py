"""`shopctl view`, against the analytics of a running shop."""

import re
from functools import partial
from pathlib import Path

from accord_runtime.grpc.ids import uuid7
from accord_runtime.views import store
from shopctl.errors import ExitCode
from tests.services.analytics.histories import history, placed
from tests.shopctl.commands.test_work import objects, output, run
from tests.support.shop import running_shop
from tests.support.wait import until


async def test_view(tmp_path: Path) -> None:
    """Views are listed and rebuilt to the end; one that cannot be rebuilt is what it was."""
    async with running_shop(tmp_path, "orders", "analytics") as shop:
        orders, analytics = (shop.runtimes[name] for name in ("orders", "analytics"))

        async def built() -> bool:
            state = await analytics.database.read(partial(store.read, name="sales"))
            return state.generation > 0

        await until(built, "the view to be built")
        order_id = uuid7()
        for number, event in enumerate(history("PAID", order_id, placed(order_id)), start=1):
            await orders.database.write(partial(orders.outbox.append, event=event, sequence=number))
        (*_, last) = await objects(shop, "view", "rebuild", "sales")
        assert last["generation"] == "2"
        assert last["completeness"]["position"] == "3"
        listed = await output(shop, "view", "list")
        assert re.search(r"^sales +READY +3 +0  2\d{3}-", listed, re.MULTILINE)
        unknown = await run(shop, "view", "rebuild", "nothing")
        assert unknown.code == ExitCode.REFUSED

        poison = uuid7()
        for number, event in enumerate(
            history("PAID", poison, placed(poison, 10**15, tea=10**4)), start=1
        ):
            await orders.database.write(partial(orders.outbox.append, event=event, sequence=number))
        bad = await run(shop, "view", "rebuild", "sales")
        assert bad.code == ExitCode.REFUSED
        assert "view sales is what it was: " in bad.error
        assert re.search(r"sales +READY ", await output(shop, "view", "list"))
        assert (await analytics.database.read(partial(store.read, name="sales"))).generation == 2
