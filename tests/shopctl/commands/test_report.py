"""`shopctl report`, against analytics and the record of the orders."""

from datetime import UTC, datetime
from pathlib import Path

from accord_runtime.grpc.ids import uuid7
from shopctl.errors import ExitCode
from tests.services.analytics.histories import history, placed
from tests.shopctl.commands.test_work import objects, output, run
from tests.support.shop import running_shop


async def test_report(tmp_path: Path) -> None:
    """A month is reported as CSV, or as JSON; repeated under its key it is the same job."""
    async with running_shop(tmp_path, "orders") as shop:
        orders, order_id = shop.runtimes["orders"], uuid7()
        messages = history("CONFIRMED", order_id, placed(order_id, 499, "EUR", tea=2))
        for number, message in enumerate(messages, start=1):
            await orders.database.write(
                lambda tx, message=message, number=number: orders.outbox.append(  # type: ignore[misc]
                    tx, message, sequence=number
                )
            )
        await shop.start("analytics")
        month = datetime.now(UTC).strftime("%Y-%m")
        lines = (await output(shop, "report", month, "--key", "once")).splitlines()
        assert lines[0] == "of,value,placed,confirmed,units,ordered,revenue"
        assert "product,tea,1,1,2,998,998" in lines
        assert "status,CONFIRMED,1,1,2,998,998" in lines
        (found,) = await objects(shop, "report", month, "--key", "once")
        assert found["products"][0]["value"] == "tea"
        (operation,) = await objects(shop, "operation", "list", "--service", "analytics")
        assert operation["kind"] == "report"
        bad = await run(shop, "report", "2099-01")
        assert (bad.code, "has not begun" in bad.error) == (ExitCode.REFUSED, True)
