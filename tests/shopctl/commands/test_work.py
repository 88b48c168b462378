"""The commands for operators, against the shop itself."""

import asyncio
import json
import re
import shlex
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import accord
from accord.ops.v1.saga_pb2 import GetSagaRequest, SagaPhase
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2 import WorkItem, WorkState
from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.saga import orchestrator
from accord_runtime.work import table
from shop.sandbox.v1 import sandbox_pb2
from shopctl.commands import saga, work
from shopctl.errors import ExitCode
from shopctl.formatting import enum_name
from tests.services.orders.books import behave, updates
from tests.shopctl.support.shop import SHOPCTL
from tests.support.mesh_process import inherited
from tests.support.shop import ALL, Shop, order_request, running_shop
from tests.support.wait import DEADLINE, until

NOBODY = "00000000-0000-7000-8000-000000000000"
SHOP = ALL


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    error: str


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The shop; a step of an order that fails once is parked."""
    monkeypatch.setattr(orchestrator, "DELAYS", ())
    async with running_shop(tmp_path, *SHOP) as shop:
        yield shop


async def run(shop: Shop, *arguments: str) -> Ran:
    """Runs `shopctl` as a user does."""
    process = await asyncio.create_subprocess_exec(
        *SHOPCTL,
        *arguments,
        cwd=shop.home,
        env={
            **inherited(),
            "MESH_PORT_OFFSET": str(shop.offset),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), DEADLINE)
    return Ran(process.returncode or 0, out.decode(), error.decode())


async def output(shop: Shop, *arguments: str) -> str:
    """What a command printed, which must have gone well."""
    ran = await run(shop, *arguments)
    assert (ran.code, ran.error) == (ExitCode.OK, "")
    return ran.out


async def objects(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    """What a command printed as JSON."""
    text = await output(shop, *arguments, "--json")
    return [json.loads(line) for line in text.splitlines()]


async def refused(shop: Shop, reason: str, *arguments: str) -> None:
    """A command ends with 5 and one line that names the reason."""
    ran = await run(shop, *arguments)
    assert (ran.code, ran.out) == (ExitCode.REFUSED, "")
    assert reason in ran.error
    assert ran.error.count("\n") == 1


async def stuck_order(shop: Shop, party: "sandbox_pb2.Party.ValueType") -> str:
    """An order whose saga is parked."""
    await shop.product("tea", 499, on_hand=10)
    await behave(shop, party, sandbox_pb2.BEHAVIOR_FAIL)
    request = order_request(await shop.customer(), {"tea": 2})
    metadata = accord.idempotency_key(uuid7())
    order = (await shop.orders.CreateOrder(request, metadata=metadata)).order.order_id
    stub = SagaServiceStub(shop.channel("orders"))
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await stub.GetSaga(GetSagaRequest(saga_id=order))
            if found.work.state == WorkState.WORK_STATE_PARKED:
                return order
            await asyncio.sleep(0.02)


async def test_a_stuck_order_is_found_and_retried(shop: Shop) -> None:
    """From the list of parked work over the saga to its end, and into the audit record."""
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARD_PROCESSOR)

    (item,) = await objects(shop, "work", "list", "--state", "parked")
    assert (item["service"], item["queue"], item["key"]) == ("orders", "saga", order)
    assert "UNAVAILABLE" in item["last_error"]
    queues = await objects(shop, "work", "queues")
    assert {each["service"] for each in queues if each["queue"] == "outbox"} == set(SHOP)
    (saga_queue,) = (each for each in queues if each["queue"] == "saga")
    assert (saga_queue["service"], saga_queue["parked"]) == ("orders", "1")
    line = await output(shop, "work", "queues", "--service", "orders")
    assert line.split()[:6] == ["SERVICE", "QUEUE", "WAITING", "IN", "FLIGHT", "PARKED"]
    assert re.search(r"^orders +saga +0 +0 +1 +0 ", line, re.MULTILINE)
    line = await output(shop, "work", "list", "--service", "orders", "--queue", "saga")
    assert re.search(rf"PARKED  orders +saga +{order}  failed 1x", line)
    assert (await run(shop, "work", "list", "--service", "payments")).error == "no work found\n"
    assert (await run(shop, "work", "list", "--min-age", "1h")).error == "no work found\n"
    shown = await output(shop, "work", "show", item["work_id"], "--service", "orders")
    assert "attempt 1  UNAVAILABLE: " in shown

    (found,) = await objects(shop, "saga", "list", "--phase", "forward", "--definition", "order")
    assert (found["saga_id"], found["step"]) == (order, "charge")
    shown = await output(shop, "saga", "show", order)
    assert "reserve         FORWARD   ok" in shown
    assert f"{item['work_id']} PARKED, failed 1x" in shown

    because = ("--reason", "the processor is back")
    await refused(
        shop, "SAGA_WORK", "work", "discard", item["work_id"], "--service", "orders", *because
    )
    await refused(shop, "NOT_SKIPPABLE", "saga", "skip", order, *because)
    await refused(shop, "STEP_CHANGED", "saga", "skip", order, "--step", "ship", *because)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    (after,) = await objects(shop, "saga", "retry", order, *because, "--key", "once")
    assert await objects(shop, "saga", "retry", order, *because, "--key", "once") == [after]
    await updates(shop, order)

    assert "DONE" in await output(shop, "saga", "list")
    (record,) = await objects(shop, "audit")
    assert (record["target"], record["reason"]) == (order, "the processor is back")
    text = await output(shop, "audit", "--target", order)
    assert re.search(rf"anonymous +RetrySaga +{order}  the processor is back", text)
    await refused(shop, "SAGA_ENDED", "saga", "abandon", order, *because)


async def test_an_order_is_turned_back(shop: Shop) -> None:
    """`saga compensate` before the pivot."""
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARD_PROCESSOR)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    text = await output(shop, "saga", "compensate", order, "--reason", "customer called")
    assert "charge (to be undone)" in text
    assert (await updates(shop, order))[-1].event_type.endswith("OrderCancelled")


async def test_an_order_is_shipped_by_hand(shop: Shop) -> None:
    """`saga skip` at the pivot, from which `saga compensate` is refused."""
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARRIER)
    await refused(shop, "TOO_LATE", "saga", "compensate", order, "--reason", "no carrier")
    assert "commit_stock" in await output(shop, "saga", "skip", order, "--reason", "by courier")
    assert (await updates(shop, order))[-1].event_type.endswith("OrderConfirmed")


async def test_an_order_is_abandoned(shop: Shop) -> None:
    """`saga abandon` leaves no work behind."""
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARRIER)
    text = await output(shop, "saga", "abandon", order, "--reason", "settled on paper")
    assert "ABANDONED" in text
    assert (await run(shop, "work", "list")).error == "no work found\n"
    assert "ship            FORWARD   abandoned" in await output(shop, "saga", "show", order)


async def test_parked_work_is_retried_and_discarded(shop: Shop) -> None:
    """`work retry` and `work discard` print the item; what is gone cannot be settled again."""

    def park(tx: Tx) -> str:
        found = table.enqueue(tx, "letters", "\x1b[2J", b"x", now=1.0)
        tx.execute("UPDATE work SET state = 'parked' WHERE id = :id", {"id": found.id})
        return found.id

    item = await shop.runtimes["orders"].database.write(park)
    orders = ("--service", "orders", "--reason", "nobody reads it")
    (discarded,) = await objects(shop, "work", "discard", item, *orders, "--key", "once")
    assert (discarded["work_id"], discarded["state"]) == (item, "WORK_STATE_PARKED")
    assert await objects(shop, "work", "discard", item, *orders, "--key", "once") == [discarded]
    await refused(shop, "NOT_FOUND", "work", "discard", item, *orders)

    item = await shop.runtimes["orders"].database.write(park)
    text = await output(shop, "work", "retry", item, *orders)
    assert re.search(r"READY   orders +letters +\\u001b\[2J +failed 0x", text)
    await refused(shop, "NOT_PARKED", "work", "discard", item, *orders)
    assert len(await objects(shop, "audit", "--limit", "1")) == 1
    assert len(await objects(shop, "audit")) == 2


BECAUSE = ("--reason", "the letters can be read")


async def parked_letters(shop: Shop, count: int, error: str = "UNAVAILABLE: away") -> list[str]:
    """Work of the orders service that nobody handles, parked; the ids, oldest first."""

    def park(tx: Tx) -> list[str]:
        hour_ago = time.time() - 3600.0
        found = [table.enqueue(tx, "letters", uuid7(), now=hour_ago).id for _ in range(count)]
        history = json.dumps([{"at": 1.0, "attempt": 1, "error": error}])
        tx.execute(
            "UPDATE work SET state = 'parked', attempts = 1, history = :history"
            " WHERE state = 'ready'",
            {"history": history},
        )
        return found

    return await shop.runtimes["orders"].database.write(park)


async def records(shop: Shop) -> list[str]:
    """The targets of all audit records, oldest first."""
    return [each["target"] for each in await objects(shop, "audit", "--limit", "1000")][::-1]


LETTERS = ("work", "retry", "--service", "orders", "--queue", "letters", *BECAUSE)


async def test_many_are_retried_by_filter_and_first_only_shown(shop: Shop) -> None:
    """Without --go a sample, the number and the command; with it those, and no others."""
    lost = await parked_letters(shop, 12)
    other = await parked_letters(shop, 1, "NOT_FOUND: no such house")
    shown = await run(shop, *LETTERS, "--error", "UNAVAILABLE", "--rate", "100")
    assert shown.code == ExitCode.OK
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == lost[:10]
    command = shlex.join([*LETTERS, "--error", "UNAVAILABLE", "--rate", "100", "--go"])
    assert shown.error == f"12 to retry in 0 s or more: shopctl {command}\n"
    assert len(await objects(shop, "work", "list", "--state", "parked")) == 13
    assert await records(shop) == []

    done = await run(shop, *shlex.split(command))
    assert (done.code, done.error) == (ExitCode.OK, "12 of 12 are retried\n")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == lost
    left = await objects(shop, "work", "list", "--state", "parked")
    assert [item["work_id"] for item in left] == other
    assert await records(shop) == lost
    assert (await run(shop, *shlex.split(command))).error == "nothing to retry found\n"

    young = await run(shop, *LETTERS, "--min-age", "2h")
    assert young.error == "nothing to retry found\n"
    waiting = await run(shop, *LETTERS, "--state", "ready", "--go", "--rate", "100", "--json")
    assert [json.loads(line)["work_id"] for line in waiting.out.splitlines()] == lost


async def test_no_more_than_the_rate_are_retried(shop: Shop) -> None:
    """Six at two a second become due within two and a half seconds, one after the other."""
    await parked_letters(shop, 6)
    assert (await run(shop, *LETTERS, "--rate", "2", "--go")).code == ExitCode.OK
    rows = await shop.runtimes["orders"].database.read(
        lambda tx: tx.all("SELECT due_at FROM work WHERE queue = 'letters' ORDER BY id")
    )
    due = [row["due_at"] for row in rows]
    assert [round(at - due[0], 2) for at in due] == [0, 0.5, 1, 1.5, 2, 2.5]


async def test_what_is_gone_meanwhile_is_passed_over(shop: Shop) -> None:
    """An item that was settled since the first batch is left out, and the others are retried."""
    items = await parked_letters(shop, 7)
    running = asyncio.create_task(run(shop, *LETTERS, "--rate", "1", "--go"))
    await until(lambda: _retried(shop, 5), "the first batch to be retried")
    await shop.runtimes["orders"].database.write(
        lambda tx: tx.execute("DELETE FROM work WHERE id = :id", {"id": items[5]})
    )
    ran = await running
    assert (ran.code, ran.error) == (ExitCode.OK, "6 of 7 are retried\n")
    assert await records(shop) == [*items[:5], items[6]]


async def test_a_run_that_is_cut_off_is_ended_by_the_next(shop: Shop) -> None:
    """When the service goes away half-way the command says so; the same one finds the rest."""
    items = await parked_letters(shop, 15)
    running = asyncio.create_task(run(shop, *LETTERS, "--rate", "1", "--go"))
    await until(lambda: _retried(shop, 5), "the first batch to be retried")
    await shop.stop("orders")
    ran = await running
    assert ran.code in (ExitCode.NOT_RUNNING, ExitCode.UNKNOWN_OUTCOME)
    assert "5 of 15 are retried; the same command finds the rest: " in ran.error
    await shop.start("orders")
    assert (await run(shop, *LETTERS, "--rate", "100", "--go")).code == ExitCode.OK
    assert await records(shop) == items


async def test_many_sagas_are_retried_by_filter(shop: Shop) -> None:
    """`saga retry` without an ID: those of a kind and phase whose step is parked with an error."""
    orders = [await stuck_order(shop, sandbox_pb2.PARTY_CARD_PROCESSOR) for _ in range(3)]
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    retry = ("saga", "retry", "--rate", "100", *BECAUSE)
    for none in (("--definition", "errand"), ("--phase", "backward"), ("--error", "NOT_FOUND")):
        assert (await run(shop, *retry, *none)).error == "nothing to retry found\n"
    these = ("--definition", "order", "--phase", "forward", "--error", "UNAVAILABLE")
    shown = await run(shop, *retry, *these)
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == orders
    ran = await run(shop, *retry, *these, "--go")
    assert (ran.code, ran.error) == (ExitCode.OK, "3 of 3 are retried\n")
    for order in orders:
        await updates(shop, order)
    assert await records(shop) == orders


async def test_a_service_that_is_down_hides_no_other(shop: Shop) -> None:
    """The queues of all others are listed, and then it is said who is missing."""
    await shop.stop("payments")
    ran = await run(shop, "work", "queues", "--json")
    listed = {json.loads(line)["service"] for line in ran.out.splitlines()}
    assert listed == set(SHOP) - {"payments"}
    assert ran.code == ExitCode.NOT_RUNNING
    assert "payments does not serve" in ran.error


async def _retried(shop: Shop, count: int) -> bool:
    found: int = await shop.runtimes["orders"].database.read(
        lambda tx: tx.value("SELECT COUNT(*) FROM audit")
    )
    return found >= count


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("work", "retry", NOBODY, "--service", "orders"), ExitCode.USAGE, "--reason"),
        (("work", "show", NOBODY), ExitCode.USAGE, "--service"),
        (("work", "list", "--service", "printers"), ExitCode.USAGE, "printers"),
        (("work", "list", "--min-age", "soon"), ExitCode.USAGE, "soon"),
        ((*LETTERS, "--rate", "0"), ExitCode.USAGE, "--rate"),
        ((*LETTERS, "--state", "leased"), ExitCode.USAGE, "leased"),
        (("saga", "abandon", NOBODY), ExitCode.USAGE, "--reason"),
        (("work", "show", "x", "--service", "orders"), ExitCode.REFUSED, "work_id"),
        (("work", "show", NOBODY, "--service", "orders"), ExitCode.REFUSED, "NOT_FOUND"),
        (("saga", "show", NOBODY), ExitCode.REFUSED, "NOT_FOUND"),
        (("saga", "skip", NOBODY, "--reason", "r"), ExitCode.REFUSED, "NOT_FOUND"),
        (("saga", "retry", NOBODY, "--reason", ""), ExitCode.REFUSED, "reason"),
        (("saga", "list", "--service", "customers"), ExitCode.FAILED, "UNIMPLEMENTED"),
        (("work", "list", "--service", "payments"), ExitCode.NOT_RUNNING, "payments"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_what_cannot_be_done(
    tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, text: str
) -> None:
    """Usage, refusals and services that are not there have exit codes of their own."""
    async with running_shop(tmp_path, "customers", "orders") as shop:
        ran = await run(shop, *arguments)
    assert ran.code == code
    assert text in ran.error
    assert not ran.out


def test_states_and_phases_are_those_of_the_contract() -> None:
    """What can be asked for is what there is."""
    states = {name.removeprefix("WORK_STATE_").lower() for name in WorkState.keys()}  # noqa: SIM118
    assert set(get_args(work.State)) == states - {"unspecified"}
    phases = {name.removeprefix("SAGA_PHASE_").lower() for name in SagaPhase.keys()}  # noqa: SIM118
    assert set(get_args(saga.Phase)) == phases - {"unspecified"}


def test_a_state_of_a_newer_version_is_shown() -> None:
    """A number that this version does not know is printed, not refused."""
    item = WorkItem.FromString(b"\x20\x63")  # field 4, value 99
    assert enum_name(WorkState.items(), item.state) == "99"
