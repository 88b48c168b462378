"""Misbehaviour on command."""

import asyncio
import time

import pytest

from accord.errors import Unavailable
from accord_runtime.database import Database
from services.sandbox.behavior import Behaviors
from services.sandbox.domain import Conduct
from shop.sandbox.v1 import sandbox_pb2 as pb

CARDS, CARRIER = pb.PARTY_CARD_PROCESSOR, pb.PARTY_CARRIER


class Log:
    """Work that notes how it was done."""

    def __init__(self) -> None:
        self.done: list[pb.Behavior.ValueType] = []

    async def work(self, conduct: Conduct) -> str:
        self.done.append(conduct.behavior)
        return "answer"


async def test_nothing_set_is_normal(tables: Database) -> None:
    """Without a command the work is done and its answer returned."""
    log = Log()

    assert await Behaviors(tables).perform(CARDS, log.work) == "answer"
    assert log.done == [pb.BEHAVIOR_NORMAL]


async def test_a_command_is_used_up_call_by_call_of_its_party(tables: Database) -> None:
    """It holds for as many calls as it says, and for one party only."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_DECLINE), 2)
    await behaviors.perform(CARRIER, log.work)
    for _ in range(3):
        await behaviors.perform(CARDS, log.work)

    assert log.done == [
        pb.BEHAVIOR_NORMAL,
        pb.BEHAVIOR_DECLINE,
        pb.BEHAVIOR_DECLINE,
        pb.BEHAVIOR_NORMAL,
    ]


async def test_a_command_for_no_number_of_calls_stays_until_changed(tables: Database) -> None:
    """With 0 calls it holds until another command replaces it."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_DECLINE), 0)
    for _ in range(5):
        await behaviors.perform(CARDS, log.work)
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_NORMAL), 0)
    await behaviors.perform(CARDS, log.work)

    assert log.done == [pb.BEHAVIOR_DECLINE] * 5 + [pb.BEHAVIOR_NORMAL]


async def test_a_command_survives_a_restart(tables: Database) -> None:
    """What is left of a command is kept in the database, not in the process."""
    log = Log()
    await Behaviors(tables).set(CARDS, Conduct(pb.BEHAVIOR_DECLINE), 2)
    await Behaviors(tables).perform(CARDS, log.work)
    for _ in range(2):
        await Behaviors(tables).perform(CARDS, log.work)

    assert log.done == [pb.BEHAVIOR_DECLINE, pb.BEHAVIOR_DECLINE, pb.BEHAVIOR_NORMAL]


async def test_fail_does_nothing(tables: Database) -> None:
    """FAIL answers UNAVAILABLE before the work."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_FAIL), 1)

    with pytest.raises(Unavailable):
        await behaviors.perform(CARDS, log.work)
    assert log.done == []


async def test_a_lost_answer_was_worked_for(tables: Database) -> None:
    """LOSE_ANSWER answers UNAVAILABLE after the work."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_LOSE_ANSWER), 1)

    with pytest.raises(Unavailable):
        await behaviors.perform(CARDS, log.work)
    assert log.done == [pb.BEHAVIOR_LOSE_ANSWER]


async def test_hang_ends_with_its_caller_and_does_nothing(tables: Database) -> None:
    """HANG waits until the caller gives up."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_HANG), 1)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(behaviors.perform(CARDS, log.work), 0.1)
    assert log.done == []
    assert await behaviors.perform(CARDS, log.work) == "answer"


async def test_delay_works_late(tables: Database) -> None:
    """DELAY does the work after its delay, and then answers."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_DELAY, 0.2), 1)
    began = time.monotonic()

    assert await behaviors.perform(CARDS, log.work) == "answer"
    assert time.monotonic() - began >= 0.2
    assert log.done == [pb.BEHAVIOR_DELAY]


async def test_delayed_work_is_done_though_its_caller_has_gone(tables: Database) -> None:
    """As with real parties, a caller that has given up does not know what happens later."""
    behaviors = Behaviors(tables)
    done = asyncio.Event()

    async def work(conduct: Conduct) -> None:
        done.set()

    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_DELAY, 0.2), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(behaviors.perform(CARDS, work), 0.05)

    assert not done.is_set()
    await asyncio.wait_for(done.wait(), 5)


async def test_work_that_waits_at_the_end_is_forgotten(tables: Database) -> None:
    """Closing drops delayed work, as if it had never arrived."""
    behaviors, log = Behaviors(tables), Log()
    await behaviors.set(CARDS, Conduct(pb.BEHAVIOR_DELAY, 30), 1)
    call = asyncio.create_task(behaviors.perform(CARDS, log.work))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), 0.1)
    await behaviors.close()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert log.done == []
