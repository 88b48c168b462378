"""Misbehaviour on command: what is set is kept in the database and used up call by call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from accord.errors import Unavailable
from accord_runtime.database import Database, Tx
from services.sandbox.domain import Conduct
from shop.sandbox.v1 import sandbox_pb2 as pb

T = TypeVar("T")

Work = Callable[[Conduct], Awaitable[T]]
"""Does the work of one call in one transaction; declining is up to it."""


_SET: Final = "party = :party AND (calls_left IS NULL OR calls_left > 0)"


class Behaviors:
    """How the parties treat their next calls. It survives a restart."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._late: set[asyncio.Task[object]] = set()

    async def set(self, party: "pb.Party.ValueType", conduct: Conduct, calls: int) -> None:
        """Treat the next `calls` calls of a party in a way; 0 means until it is changed."""

        def replace(tx: Tx) -> None:
            tx.insert(
                "behaviors",
                {
                    "party": party,
                    "behavior": conduct.behavior,
                    "delay": conduct.delay,
                    "calls_left": calls or None,
                },
                on_conflict="(party) DO UPDATE SET behavior = excluded.behavior,"
                " delay = excluded.delay, calls_left = excluded.calls_left",
            )

        await self._database.write(replace)

    async def perform(self, party: "pb.Party.ValueType", work: Work[T], *, delay: float = 0.0) -> T:
        """Do the work of one call the way that is set, `delay` seconds late in any case.

        Raises:
            Unavailable: on FAIL, before the work; on LOSE_ANSWER, after it.
        """
        conduct = Conduct()
        if await self._database.look_up(lambda tx: _is_set(tx, party)):
            conduct = await self._database.write(lambda tx: _use_up(tx, party))
        if conduct.behavior == pb.BEHAVIOR_FAIL:
            raise Unavailable(message="out of order, as commanded")
        if conduct.behavior == pb.BEHAVIOR_HANG:
            # Ends when the caller gives up.
            await asyncio.Event().wait()
        if conduct.behavior == pb.BEHAVIOR_DELAY:
            delay += conduct.delay
        answer = await (self._later(delay, work, conduct) if delay else work(conduct))
        if conduct.behavior == pb.BEHAVIOR_LOSE_ANSWER:
            raise Unavailable(message="the answer was lost, as commanded")
        return answer

    async def _later(self, delay: float, work: Work[T], conduct: Conduct) -> T:
        """Wait, then do the work, even if the caller has given up by then, as real parties do."""

        async def wait_and_work() -> T:
            await asyncio.sleep(delay)
            return await work(conduct)

        task = asyncio.create_task(wait_and_work())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Forget the work that still waits, as if it had never arrived."""
        for task in self._late:
            task.cancel()


def _is_set(tx: Tx, party: "pb.Party.ValueType") -> bool:
    return tx.value(f"SELECT 1 FROM behaviors WHERE {_SET}", {"party": party}) is not None


def _use_up(tx: Tx, party: "pb.Party.ValueType") -> Conduct:
    row = tx.one(
        f"UPDATE behaviors SET calls_left = calls_left - 1 WHERE {_SET} RETURNING behavior, delay",
        {"party": party},
    )
    return Conduct(row["behavior"], row["delay"]) if row else Conduct()
