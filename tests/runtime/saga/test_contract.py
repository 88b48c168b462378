"""Sagas as their contracts say: what is read, how requests are filled, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import pytest

from accord import ContractError, ServiceError
from accord.contract import SagaPolicy
from accord_runtime.database import Database, Tx
from accord_runtime.saga import Call, Contract, Definition, Kind, Local, Phase, Sagas, Step
from accord_runtime.saga.orchestrator import load
from accord_runtime.work.executor import Executor
from tests.runtime.saga.trips import (
    KEYED,
    RPCS,
    SAGA,
    Agency,
    Trips,
    contract,
    declared,
    served,
    steps,
)
from tests.runtime.work.support import at_work, result
from tests.support.wait import until

Listed = list[Call[Any, Any] | Local]


async def read(trips: Trips, listed: Listed) -> list[Step]:
    """What a service reads at its start, without a server to call."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        return list(contract(trips, channel).steps(*listed))


async def refusal(trips: Trips, listed: Listed) -> str:
    """Why it does not start."""
    with pytest.raises(ContractError) as refused:
        await read(trips, listed)
    return (
        str(refused.value)
        .replace(trips.package.replace(".", "/") + "/", "")
        .replace(trips.package + ".", "")
    )


async def test_kinds_and_compensations_come_from_the_contract() -> None:
    """Up to the pivot a step is compensatable, behind it retriable; local ones by their place."""
    trips = declared()
    found = await read(trips, steps(trips))
    assert [(step.name, step.kind, step.compensation is not None) for step in found] == [
        ("hotel", Kind.COMPENSATABLE, True),
        ("flight", Kind.COMPENSATABLE, True),
        ("note", Kind.COMPENSATABLE, False),
        ("pay", Kind.PIVOT, False),
        ("tell", Kind.RETRIABLE, False),
        ("end", Kind.RETRIABLE, False),
    ]


async def test_a_step_that_only_reads_needs_no_compensation() -> None:
    """What changes nothing has nothing to undo."""
    trips = declared(Begin=SAGA.replace("BookHotel", "Look"))
    look, *others = steps(trips)
    assert isinstance(look, Call)
    found = await read(trips, [replace(look, rpc=trips.rpc("Look")), *others])
    assert found[0].compensation is None


def renamed(name: str, rpc: str) -> Callable[[Trips, Listed], None]:
    """Let a step call another RPC."""

    def change(trips: Trips, listed: Listed) -> None:
        for index, step in enumerate(listed):
            if isinstance(step, Call) and step.name == name:
                listed[index] = replace(step, rpc=trips.rpc(rpc))

    return change


def without(name: str) -> Callable[[Trips, Listed], None]:
    """Leave a step out."""

    def change(trips: Trips, listed: Listed) -> None:
        listed[:] = [step for step in listed if step.name != name]

    return change


def swapped(trips: Trips, listed: Listed) -> None:
    """Take the second before the first."""
    listed[:2] = listed[1::-1]


def twice(trips: Trips, listed: Listed) -> None:
    """Two local steps of one name."""
    listed.append(listed[-1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            renamed("pay", "PayNow"),
            "trips.proto: Trips/Begin: saga.steps: step 'pay' calls 'Trips/PayNow', which is none"
            " of them; did you mean 'Trips/Pay'?",
        ),
        (
            without("flight"),
            "trips.proto: Trips/Begin: saga.steps: no step calls 'Trips/BookFlight'",
        ),
        (
            renamed("tell", "Look"),
            "trips.proto: Trips/Begin: saga.steps: step 'tell' calls 'Trips/Look', which is none"
            " of them",
        ),
        (
            swapped,
            "trips.proto: Trips/Begin: saga.steps: call 1 is 'Trips/BookFlight' instead of"
            " 'Trips/BookHotel'",
        ),
        (
            renamed("flight", "BookHotel"),
            "trips.proto: Trips/Begin: saga.steps: no step calls 'Trips/BookFlight'",
        ),
        (twice, "trips.proto: Trips/Begin: saga.steps: two steps are called 'end'"),
    ],
    ids=["wrong", "missing", "extra", "order", "twice", "names"],
)
async def test_code_that_contradicts_its_contract_does_not_start(
    change: Callable[[Trips, Listed], None], says: str
) -> None:
    """The message names contract, RPC and field, what is wrong, and the nearest right word."""
    trips = declared()
    listed = steps(trips)
    change(trips, listed)
    said = await refusal(trips, listed)
    assert said.startswith(says)


def fill(to: str, source: str) -> str:
    """A policy of BookHotel that fills one field."""
    return KEYED + (
        'compensation { method: "%(service)s/CancelHotel"'
        f' fill {{ field: "{to}" from: "{source}" }} }}'
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Begin": ""}, "Trips/Begin: saga: is missing"),
        (
            {"Begin": SAGA.replace('pivot: "%(service)s/Pay"', 'pivot: "%(service)s/Payy"')},
            "Trips/Begin: saga.pivot: 'Trips/Payy' is not one of the steps; did you mean"
            " 'Trips/Pay'?",
        ),
        (
            {"Begin": SAGA.replace("BookFlight", "BokFlight")},
            "Trips/Begin: saga.steps: Trips has no method 'BokFlight'; did you mean 'BookFlight'?",
        ),
        (
            {"BookHotel": KEYED},
            "Trips/BookHotel: compensation: is missing: it is a step of Trips/Begin, and not"
            " behind the pivot",
        ),
        (
            {"BookHotel": RPCS["BookHotel"].replace("CancelHotel", "CancelHotl")},
            "Trips/BookHotel: compensation.method: Trips has no method 'CancelHotl'; did you mean"
            " 'CancelHotel'?",
        ),
        (
            {"BookHotel": fill("idd", "request.id")},
            "Trips/BookHotel: compensation.fill: 'idd' from 'request.id': Trip has no field 'idd';"
            " did you mean 'id'?",
        ),
        (
            {"BookHotel": fill("price", "request.id")},
            "Trips/BookHotel: compensation.fill: 'request.id' is a string, but 'price' a int64",
        ),
        (
            {"BookHotel": fill("place", "response.place.notes")},
            "Trips/BookHotel: compensation.fill: 'response.place.notes' is a repeated string, but"
            " 'place' a Place",
        ),
        (
            {"BookHotel": fill("id.name", "request.id")},
            "Trips/BookHotel: compensation.fill: 'id.name' from 'request.id': 'id' of Trip has no"
            " fields of its own",
        ),
        (
            {"Tell": KEYED.replace("5", "16")},
            "Trips/Tell: timeout: is 16 s, more than the 15 s that a step has at a time",
        ),
        (
            {"CancelHotel": KEYED.replace("5", "16")},
            "Trips/CancelHotel: timeout: is 16 s, more than the 15 s that a step has at a time",
        ),
    ],
)
async def test_a_contract_that_cannot_be_carried_out_does_not_start(
    changes: dict[str, str], says: str
) -> None:
    """Each of them would be found by the first saga that has to turn back, or by none at all."""
    trips = declared(**changes)
    assert (await refusal(trips, steps(trips))).removeprefix("trips.proto: ") == says


async def test_an_rpc_or_a_channel_that_is_not_there() -> None:
    """A name that is written wrong in code is refused with the one that was meant."""
    trips = declared()
    with pytest.raises(ContractError, match="has no method 'Begn'; did you mean 'Begin'"):
        Contract(trips.rpc("Begn"), {})
    with pytest.raises(ContractError, match=f"no channel is for '{trips.service}'"):
        Contract(trips.rpc("Begin"), {}).steps(*steps(trips))


async def test_an_old_version_has_the_contract_of_its_time() -> None:
    """Its steps and its pivot are those that it was registered with, whatever the contract says."""
    trips = declared()
    old = SagaPolicy(30.0, (f"/{trips.rpc('BookHotel')}", f"/{trips.rpc('Pay')}"))
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        was = Contract(trips.rpc("Begin"), {trips.service: channel}, old)
        with pytest.raises(ContractError, match="compensation: is missing"):
            was.steps(*steps(trips, "flight", "tell"))
        was = Contract(
            trips.rpc("Begin"),
            {trips.service: channel},
            replace(old, pivot=f"/{trips.rpc('Pay')}"),
        )
        found = was.steps(*steps(trips, "flight", "tell"))
    assert [step.name for step in found] == ["hotel", "note", "pay", "end"]


class Office:
    """Carries trips through."""

    def __init__(self, record: Database, trips: Trips, channel: grpc.aio.Channel) -> None:
        self.record = record
        self.executor = Executor(record, "office")
        self.sagas = Sagas(record, self.executor)

        def refused(tx: Tx, saga: str, step: str, error: ServiceError) -> None:
            result(f"{saga} refused {step}")(tx)

        self.definition = Definition(
            "trip", 1, contract(trips, channel).steps(*steps(trips)), refused, lambda *_: None
        )
        self.sagas.register(self.definition)

    async def carried(self, saga_id: str) -> Phase:
        """Begin a trip, and see how it ends."""

        async def ended() -> bool:
            saga = await self.record.read(lambda tx: load(tx, saga_id))
            return saga is not None and saga.position.ended

        async with at_work(self.executor):
            start = partial(self.sagas.start, definition=self.definition, id=saga_id)
            await self.executor.run(await self.record.write(start))
            await until(ended, "the end of the trip")
        saga = await self.record.read(lambda tx: load(tx, saga_id))
        assert saga is not None
        return saga.position.phase


async def test_requests_of_compensations_are_filled_as_the_contract_says(record: Database) -> None:
    """From the step's request and its answer, which is asked for again under the step's key."""
    trips, agency = declared(), Agency()

    async def booked(request: Any) -> Any:
        return trips.request(id=request.id, place={"name": "4A", "notes": ["window", "front"]})

    agency.answers["BookFlight"] = booked
    async with served(trips, agency) as channel:
        agency.refused.add("Pay")
        assert await Office(record, trips, channel).carried("t1") is Phase.UNDONE
    asked = [(name, key) for name, key, _ in agency.asked]
    assert asked == [
        ("BookHotel", "t1/hotel/do"),
        ("BookFlight", "t1/flight/do"),
        ("Pay", "t1/pay/do"),
        ("BookFlight", "t1/flight/do"),
        ("CancelFlight", "t1/flight/undo"),
        ("CancelHotel", "t1/hotel/undo"),
    ]
    undone = {name: request for name, _, request in agency.asked if name.startswith("Cancel")}
    assert undone["CancelFlight"] == trips.request(
        id="t1", place={"name": "4A", "notes": ["window", "front"]}
    )
    assert undone["CancelHotel"] == trips.request(id="t1")


async def test_a_good_trip_calls_each_step_once(record: Database) -> None:
    """The calls of the contract, in its order, each under its own key."""
    trips, agency = declared(), Agency()
    async with served(trips, agency) as channel:
        assert await Office(record, trips, channel).carried("t2") is Phase.DONE
    assert [key for _, key, _ in agency.asked] == [
        "t2/hotel/do",
        "t2/flight/do",
        "t2/pay/do",
        "t2/tell/do",
    ]
    assert RPCS.keys() >= {name for name, _, _ in agency.asked}
