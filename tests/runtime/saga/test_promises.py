"""The numbers that the pages promise of sagas, as they are written there."""

import pytest

from accord_runtime.database import Database
from accord_runtime.grpc.ids import uuid7
from accord_runtime.saga import Phase
from tests.runtime.saga.test_orchestrator import Plan, Shop, World, ended
from tests.runtime.work.support import at_work, parked_items, rows
from tests.support.clock import Clock
from tests.support.wait import until


@pytest.mark.parametrize(
    ("answers", "says", "phase"),
    [
        ({"b": ["fail"] * 20}, "AWAY", Phase.FORWARD),
        ({"r": ["refuse"] * 20}, "NO", Phase.FORWARD),
        ({"p": ["refuse"], "unb": ["refuse"] * 20}, "NO", Phase.BACKWARD),
    ],
    ids=["fails", "retriable refuses", "compensation refuses"],
)
async def test_twelve_attempts_in_five_minutes(
    record: Database, clock: Clock, answers: dict[str, list[str]], says: str, phase: Phase
) -> None:
    """Then the operator reads what the step has said, also where it may not refuse."""
    plan = Plan(World(), {step: list(attempts) for step, attempts in answers.items()})
    shop = Shop(record, clock, plan)
    saga, begun = uuid7(), clock()
    async with at_work(shop.executor):
        await shop.executor.run(await shop.start(saga))

        async def parked() -> bool:
            for row in await rows(record):
                if row["state"] == "ready" and row["due_at"] > clock():
                    clock.now = row["due_at"]
                    shop.executor.wake()
            return bool(await record.read(parked_items))

        await until(parked, "the work is parked")
    (item,) = await record.read(parked_items)
    assert (item.attempts, clock() - begun) == (12, 300.0)
    assert says in item.last_error
    assert (await ended(record, saga)).position.phase is phase
