"""`shopctl webhook`, against running services and a receiver."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from shopctl.errors import ExitCode
from tests.services.notifications.webhooks.bench import CONFIRMED, confirmed
from tests.services.notifications.webhooks.receiver import OUTBOUND, receiving, says
from tests.shopctl.commands.test_work import objects, output, run
from tests.support.shop import running_shop
from tests.support.wait import until


async def test_webhook(tmp_path: Path) -> None:
    """A webhook is registered, tried, paused, resumed, replayed, looked at and removed."""
    async with (
        receiving() as receiver,
        running_shop(tmp_path, "orders", "notifications", **OUTBOUND) as shop,
    ):
        create = ("webhook", "create", receiver.url, "--event", CONFIRMED)
        (made,) = await objects(shop, *create, "--if", "event.total.minor_units > 1")
        webhook_id = made["webhook"]["webhook_id"]
        assert made["secret"].startswith("whsec_")
        bad = await run(shop, *create, "--if", "event.total")
        assert (bad.code, "gives no boolean" in bad.error) == (ExitCode.REFUSED, True)

        assert "delivered in" in await output(shop, "webhook", "test", webhook_id)
        receiver.requests[-1].verify(made["secret"])
        receiver.answer = says(500)
        failed = await run(shop, "webhook", "test", webhook_id)
        assert (failed.code, "answered 500" in failed.error) == (ExitCode.REFUSED, True)
        receiver.answer = says(200)

        assert "PAUSED" in await output(shop, "webhook", "update", webhook_id, "--pause")
        event = confirmed()
        orders = shop.runtimes["orders"]
        await orders.database.write(lambda tx: orders.outbox.append(tx, event, sequence=1))
        resumed = await output(shop, "webhook", "update", webhook_id, "--resume", "--rotate-secret")
        assert "ACTIVE" in resumed
        assert "whsec_" in resumed
        assert made["secret"] not in resumed

        since = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
        replayed = await objects(shop, "webhook", "replay", webhook_id, "--since", since)
        assert replayed[-1]["response"]["deliveries"] == "1"
        await until(lambda: receiver.requests[-1].told == (event.order_id, 1), "the delivery")
        listed = await output(shop, "webhook", "deliveries", webhook_id)
        assert f"OrderConfirmed    {event.order_id}     1x" in listed
        everything = await output(shop, "webhook", "list", "--json")
        assert webhook_id in everything
        assert "secret" not in everything
        assert "is removed" in await output(shop, "webhook", "delete", webhook_id)
        assert (await run(shop, "webhook", "list")).error == "no webhooks found\n"
