"""Asks every process of a running shop how it is."""

import asyncio

from services.topology import BROKER
from shopctl import memory, table
from shopctl.health import BrokerHealth, GrpcHealth, Health, State
from shopctl.runfile import ProcessRecord, Run

CHECK_TIMEOUT = 2.0


async def survey(run: Run) -> list[table.Row]:
    """One row per process, the supervisor first. Takes 2 x `CHECK_TIMEOUT` seconds at most."""
    states = await asyncio.gather(*(_state(process) for process in run.processes))
    supervisor = table.Row(
        name="supervisor",
        address="",
        state=State.SERVING,
        pid=run.pid,
        uptime=table.uptime(run.started),
        restarts=0,
        memory=memory.proportional_bytes(run.pid),
    )
    return [supervisor, *map(_row, run.processes, states)]


async def _state(process: ProcessRecord) -> State:
    if process.managed and process.pid is None:
        return State(process.state)  # whoever answers at that address is not it
    health: Health = (BrokerHealth if process.name == BROKER else GrpcHealth)(process.address)
    answer = await health.check(CHECK_TIMEOUT)
    still_starting = process.state == State.STARTING and answer is State.UNREACHABLE
    return State.STARTING if still_starting else answer


def _row(process: ProcessRecord, state: State) -> table.Row:
    return table.Row(
        name=process.name,
        address=process.address,
        state=state,
        pid=process.pid,
        uptime=table.uptime(process.started) if process.pid else None,
        restarts=process.restarts,
        memory=memory.proportional_bytes(process.pid) if process.pid else None,
        managed=process.managed,
    )
