"""`shopctl operation`, against a job of a running service."""

import asyncio
from pathlib import Path

from google.protobuf.message import Message

from accord.errors import FailedPrecondition
from accord_runtime.grpc.ids import uuid7
from accord_runtime.jobs import Job, Kind, Progress
from shop.notifications.v1.notifications_pb2 import GetNotificationRequest, Notification
from shopctl.errors import ExitCode
from tests.shopctl.commands.test_work import objects, output, run
from tests.support.shop import running_shop


async def test_operation(tmp_path: Path) -> None:
    """An operation is listed, watched to its result or its failure, and cancelled."""
    go = asyncio.Event()

    async def step(job: Job[GetNotificationRequest]) -> Progress | Message:
        if job.request.notification_id == "refused":
            raise FailedPrecondition("NOTHING_TO_DO", "there is nothing to do")
        if job.request.notification_id == "waits":
            await go.wait()
        if not job.checkpoint:
            return Progress(b"1", 1, 2)
        return Notification(subject="done")

    async with running_shop(tmp_path, "notifications") as shop:
        runtime = shop.runtimes["notifications"]
        kind = runtime.jobs.register(Kind("test", GetNotificationRequest, step))

        async def start(what: str) -> str:
            request = GetNotificationRequest(notification_id=what)
            operation = await runtime.database.write(
                lambda tx: runtime.jobs.start(tx, kind, request)
            )
            return operation.operation_id

        here = ("--service", "notifications")
        good = await start("good")
        (*_, last) = await objects(shop, "operation", "watch", good, *here)
        assert (last["state"], last["done_units"]) == ("OPERATION_STATE_SUCCEEDED", "1")
        assert last["response"]["subject"] == "done"

        bad = await run(shop, "operation", "watch", await start("refused"), *here)
        assert bad.code == ExitCode.REFUSED
        assert "there is nothing to do" in bad.error

        waits = await start("waits")
        assert f"{waits}  " in await output(shop, "operation", "list", "--state", "running", *here)
        assert "CANCELLED" in await output(shop, "operation", "cancel", waits, *here)
        none = await run(shop, "operation", "list", "--state", "running", *here)
        assert (none.out, none.error) == ("", "no operations found\n")
        go.set()

        unknown = await run(shop, "operation", "cancel", uuid7(), *here)
        assert unknown.code == ExitCode.REFUSED
