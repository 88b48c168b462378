"""Services of somebody else stand on the runtime: those of docs/examples/runtime.

Two processes on SQLite, a real broker, contracts of their own, and no word of the shop.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from accord import ServiceError
from tests.support.foreign import Foreign, in_repository
from tests.support.nats import NatsServer
from tests.support.wait import until

DESK = "acme.desk.v1.DeskService"
DEPOT = "acme.depot.v1.DepotService"


@pytest.fixture
async def foreign(tmp_path: Path, broker_server: NatsServer) -> AsyncIterator[Foreign]:
    """Both services, serving."""
    services = Foreign(tmp_path / "acme", broker_server.url, sys.executable, in_repository())
    try:
        for name in ("desk", "depot"):
            await services.start(name)
        yield services
    finally:
        services.close()


async def send(foreign: Foreign, grams: int, key: str = "") -> str:
    """Have a parcel sent; its id."""
    answer = await foreign.call("desk", f"{DESK}/SendParcel", key or str(uuid4()), grams=grams)
    return str(answer["parcel_id"])


def parcel(foreign: Foreign, name: str, parcel_id: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Asks a service for a parcel."""
    contract = DESK if name == "desk" else DEPOT
    return lambda: foreign.call(name, f"{contract}/GetParcel", parcel_id=parcel_id)


async def ended(foreign: Foreign, parcel_id: str) -> dict[str, Any]:
    """A parcel at the desk when it is pending no more."""
    ask = parcel(foreign, "desk", parcel_id)

    async def over() -> bool:
        return bool((await ask())["state"] != "pending")

    await until(over, f"parcel {parcel_id} to be sent or refused", seconds=60)
    return await ask()


async def told(foreign: Foreign, parcel_id: str) -> None:
    """Wait until the depot has handled the event of a parcel."""
    ask = parcel(foreign, "depot", parcel_id)

    async def known() -> bool:
        return bool((await ask())["sent"])

    await until(known, "the depot to have been told", seconds=60)


async def test_a_saga_is_carried_through_and_its_event_handled(foreign: Foreign) -> None:
    """Three steps at the depot, in the order of the contract; then the depot hears of it, once."""
    parcel_id = await send(foreign, 900, "first")
    assert await send(foreign, 900, "first") == parcel_id
    at_desk = await ended(foreign, parcel_id)
    assert (at_desk["state"], at_desk["reason"]) == ("sent", "")
    assert at_desk["label_id"]
    await told(foreign, parcel_id)
    at_depot = await parcel(foreign, "depot", parcel_id)()
    assert at_depot == {"shelf": "reserved", "label": "printed", "vans": 1, "sent": 1}
    assert [foreign.stop(name) for name in ("desk", "depot")] == [0, 0]


async def test_a_refused_saga_is_undone(foreign: Foreign) -> None:
    """The last step refuses: label and shelf are given back, as their contracts say."""
    parcel_id = await send(foreign, 31_000)
    at_desk = await ended(foreign, parcel_id)
    assert (at_desk["state"], at_desk["reason"]) == ("refused", "TOO_HEAVY")
    at_depot = await parcel(foreign, "depot", parcel_id)()
    assert at_depot == {"shelf": "released", "label": "void", "vans": 0, "sent": 0}


async def test_an_event_that_comes_twice_is_handled_once(
    foreign: Foreign, broker_server: NatsServer
) -> None:
    """Also when it comes again to a process that was killed after it had handled it."""
    first = await send(foreign, 900)
    await told(foreign, first)
    foreign.kill("depot")
    async with broker_server.jetstream() as jetstream:
        message = await jetstream.get_msg("DESK", 1)
        headers = {
            name: value
            for name, value in (message.headers or {}).items()
            if not name.startswith("Nats-")
        }
        assert headers["ce-subject"] == first
        assert message.subject is not None
        await jetstream.publish(message.subject, message.data or b"", headers=headers)
        assert (await jetstream.stream_info("DESK")).state.messages == 2
    await foreign.start("depot")
    second = await send(foreign, 900)
    await told(foreign, second)  # Behind the one that came twice.
    assert (await parcel(foreign, "depot", first)())["sent"] == 1


async def test_a_saga_survives_the_death_of_both(foreign: Foreign) -> None:
    """The depot is dead when it begins, and the desk is killed while it waits."""
    foreign.kill("depot")
    parcel_id = await send(foreign, 900)
    foreign.kill("desk")
    for name in ("depot", "desk"):
        await foreign.start(name)
    assert (await ended(foreign, parcel_id))["state"] == "sent"
    await told(foreign, parcel_id)
    at_depot = await parcel(foreign, "depot", parcel_id)()
    assert at_depot == {"shelf": "reserved", "label": "printed", "vans": 1, "sent": 1}


async def test_rules_of_foreign_contracts_are_in_force(foreign: Foreign) -> None:
    """A request that breaks one is refused with the field's path."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await send(foreign, 0)
    assert [each.field for each in ServiceError.from_rpc(raised.value).violations] == ["grams"]
