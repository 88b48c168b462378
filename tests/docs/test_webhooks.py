"""The receiver that the page of webhooks shows takes what the service sends, once."""

import asyncio
import os
import sys
from pathlib import Path

import accord
from accord_runtime.grpc.ids import uuid7
from shop.notifications.v1 import webhooks_pb2 as pb
from tests.docs.pages import ROOT, blocks
from tests.services.notifications.webhooks.bench import bench, confirmed
from tests.support.ports import free_port
from tests.support.wait import until


async def test_receiver(tmp_path: Path) -> None:
    """The program of the page verifies a delivery, prints it, and refuses one of another secret."""
    (program,) = blocks((ROOT / "docs" / "webhooks.md").read_text(), "python")
    port = free_port()
    async with bench(tmp_path) as at_work:
        webhook_id, secret = await at_work.create(f"http://127.0.0.1:{port}/hook")
        receiver = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            env={**os.environ, "PORT": str(port), "WEBHOOK_SECRET": secret},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert receiver.stdout is not None

        async def tested() -> pb.TestWebhookResponse:
            request = pb.TestWebhookRequest(webhook_id=webhook_id)
            key = accord.idempotency_key(uuid7())
            return await at_work.stub.TestWebhook(request, metadata=key)

        async def answers() -> bool:
            return (await tested()).delivered

        try:
            await until(answers, "the receiver")
            async with asyncio.timeout(30):
                await receiver.stdout.readline()
                event = confirmed()
                await at_work.happens(event)
                line = (await receiver.stdout.readline()).decode()
                while event.order_id not in line:  # Tests that were repeated.
                    line = (await receiver.stdout.readline()).decode()
            assert line.startswith("shop.orders.v1.OrderConfirmed ")
            await at_work.idle()
            other, _ = await at_work.create(f"http://127.0.0.1:{port}/hook")
            webhook_id = other
            assert (await tested()).error == "the receiver answered 400"
        finally:
            receiver.kill()
            await receiver.wait()
