"""The saga as a workflow of Temporal, whose sandbox wants it in a module of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "sagas"
PARTICIPANTS = ("reserve", "charge", "ship")


@workflow.defn
class Order:
    """Three activities, one after the other."""

    @workflow.run
    async def run(self, saga: str) -> None:
        """Ask each participant to act."""
        for name in PARTICIPANTS:
            await workflow.execute_activity(
                "act",
                args=[name, f"{saga}/{name}/do"],
                start_to_close_timeout=timedelta(seconds=15),
            )


@asynccontextmanager
async def worker(
    call: Callable[[str, str], Awaitable[None]], address: str
) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A worker at a server's address; yields what carries one saga to its end."""
    client = await Client.connect(address)

    @activity.defn(name="act")
    async def act(name: str, key: str) -> None:
        await call(name, key)

    async def carry(saga: str) -> None:
        await client.execute_workflow(Order.run, saga, id=saga, task_queue=QUEUE)

    async with Worker(client, task_queue=QUEUE, workflows=[Order], activities=[act]):
        yield carry
