"""What an operator can see and do, over gRPC, against real services on both databases."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_reflection.v1alpha import reflection_pb2

import accord
from accord.admin.mesh_service import CONTRACT
from accord.contract import Key, check_service
from accord.errors import ServiceError
from accord.ops.v1 import audit_pb2, saga_pb2, work_pb2
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from accord_runtime import admin, jobs, saga
from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import running
from accord_runtime.saga import (
    Definition,
    Kind,
    Phase,
    Position,
    Sagas,
    Step,
    orchestrator,
    state_machine,
)
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Settings
from accord_runtime.work.executor import Permanent, Queue
from accord_runtime.work.table import Effect, Work
from services import topology
from shop.orders.v1 import orders_pb2
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2
from tests.services.orders.books import Ledger, behave, kinds, ledger, stock, updates
from tests.services.orders.conftest import new_database
from tests.support.ports import free_port
from tests.support.shop import Shop, order_request, running_shop

T = TypeVar("T")

NOBODY = "00000000-0000-7000-8000-000000000000"
SHOP = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")


async def eventually(look: Callable[[], Awaitable[T]], what: str) -> T:
    """What `look` returns once that is true; fails the test after twenty seconds."""
    deadline = time.monotonic() + 20
    while not (found := await look()):
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def refused(code: grpc.StatusCode, reason: str) -> AsyncIterator[None]:
    """The call inside is refused like this."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == (code, reason)


def precondition(reason: str) -> Any:
    """The call inside is refused for the state of things."""
    return refused(grpc.StatusCode.FAILED_PRECONDITION, reason)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Where services keep their state: a file by default, or a new PostgreSQL database."""
    if request.param == "sqlite":
        return ""
    return new_database(request.getfixturevalue("postgres_url"))


@dataclass
class Bench:
    """A tiny service with real work and real sagas, and its operator's clients.

    What is in `broken` fails for good: keys of work, and names of steps ("-a" undoes "a").
    """

    runtime: Runtime
    mesh: accord.Mesh
    broken: set[str]
    done: list[str] = field(default_factory=list)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    pause: float = 0.0
    """Seconds that each step takes."""
    running: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def work(self) -> WorkServiceStub:
        return WorkServiceStub(self.mesh.channel("bench"))

    @property
    def sagas(self) -> SagaServiceStub:
        return SagaServiceStub(self.mesh.channel("bench"))

    async def enqueue(self, key: str, *payloads: str) -> None:
        """Work of one key, in one transaction."""

        def write(tx: Tx) -> None:
            for payload in payloads:
                self.runtime.executor.enqueue(tx, "letters", key, payload.encode())

        await self.runtime.database.write(write)

    async def listed(self, state: str = "UNSPECIFIED", **filters: Any) -> list[work_pb2.WorkItem]:
        """The items that the operator sees."""
        wanted = work_pb2.WorkState.Value(f"WORK_STATE_{state}")
        request = work_pb2.ListWorkRequest(state=wanted, **filters)
        return list((await self.work.ListWork(request)).items)

    async def parked(self, count: int = 1) -> list[work_pb2.WorkItem]:
        """Waits until so many items are parked."""

        async def look() -> list[work_pb2.WorkItem]:
            found = await self.listed("PARKED")
            return found if len(found) == count else []

        return await eventually(look, f"{count} parked items")

    async def audit(self, target: str = "", **page: Any) -> list[audit_pb2.AuditRecord]:
        """The audit records of a target."""
        stub = AuditServiceStub(self.mesh.channel("bench"))
        request = audit_pb2.ListAuditRequest(target=target, **page)
        return list((await stub.ListAudit(request)).records)

    async def start_saga(self) -> str:
        """A saga that runs in the background."""
        sagas = self.runtime.sagas
        assert sagas is not None
        saga_id = uuid7()
        work = await self.runtime.database.write(
            lambda tx: sagas.start(tx, self.definition(), saga_id)
        )
        task = asyncio.create_task(self.runtime.executor.run(work))
        task.add_done_callback(lambda task: task.exception())
        self.running.append(task)
        return saga_id

    async def saga(self, saga_id: str) -> saga_pb2.GetSagaResponse:
        """A saga as the operator sees it."""
        return await self.sagas.GetSaga(saga_pb2.GetSagaRequest(saga_id=saga_id))

    async def in_phase(self, saga_id: str, phase: str) -> saga_pb2.GetSagaResponse:
        """Waits until a saga is in a phase."""

        async def look() -> saga_pb2.GetSagaResponse | None:
            found = await self.saga(saga_id)
            wanted = saga_pb2.SagaPhase.Value(f"SAGA_PHASE_{phase}")
            return found if found.saga.phase == wanted else None

        found = await eventually(look, f"saga {saga_id} to be {phase}")
        assert found is not None
        return found

    async def handle(self, work: Work) -> Effect | None:
        """Does the work of the queue "letters"."""
        if work.key in self.held:
            await self.held[work.key].wait()
        if work.key in self.broken or work.payload.decode() in self.broken:
            raise Permanent(f"{work.key}\n is broken")
        self.done.append(work.payload.decode())
        return None

    def action(self, name: str) -> Callable[[str, str], Coroutine[Any, Any, Effect | None]]:
        """Does a step, or undoes it."""

        async def act(saga_id: str, key: str) -> Effect | None:
            if name in self.held:
                await self.held[name].wait()
            await asyncio.sleep(self.pause)
            if name in self.broken:
                raise Permanent(f"{name} is broken")
            self.done.append(name)
            return None

        return act

    def definition(self) -> Definition:
        """What can be undone is a and b, c is the pivot, d follows; b and d cannot be skipped."""

        def written(text: str) -> Callable[[Tx, str], None]:
            return lambda tx, saga_id: self.runtime.executor.enqueue(
                tx, "letters", saga_id, text.encode()
            )

        return Definition(
            "errand",
            1,
            (
                Step("a", Kind.COMPENSATABLE, self.action("a"), self.action("-a")),
                Step("b", Kind.COMPENSATABLE, self.action("b"), self.action("-b")),
                Step("c", Kind.PIVOT, self.action("c"), skipped=written("c by hand")),
                Step("d", Kind.RETRIABLE, self.action("d")),
            ),
            refused=lambda tx, saga_id, step, error: None,
            undone=written("undone"),
            cancelled=written("cancelled"),
        )


@asynccontextmanager
async def bench_in(home: Path, database_url: str) -> AsyncIterator[Bench]:
    """A bench whose service runs."""
    benches: list[Bench] = []

    def build(runtime: Runtime) -> None:
        mesh = accord.Mesh("test", targets={"bench": runtime.settings.address})
        bench = Bench(runtime, mesh, set())
        benches.append(bench)
        runtime.executor.register(Queue("letters", bench.handle, delays=()))
        runtime.executor.register(Queue("later", bench.handle, delays=(3600.0,)))
        runtime.sagas = Sagas(runtime.database, runtime.executor)
        runtime.sagas.register(bench.definition())

    service = Service(
        "analytics",
        contracts=(),
        build=build,
        migrations=(*saga.MIGRATIONS, *saga.LATER_MIGRATIONS),
    )
    settings = Settings(
        "analytics",
        topology.addresses(),
        home=home,
        listen=f"127.0.0.1:{free_port()}",
        nats_url=f"nats://127.0.0.1:{free_port()}",
        database_url=database_url,
    )
    async with running(service, settings):
        try:
            yield benches[0]
        finally:
            for event in benches[0].held.values():
                event.set()
            await benches[0].mesh.close()


@pytest.fixture
async def bench(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A bench on each database in turn; a step that fails is parked at once."""
    monkeypatch.setattr(orchestrator, "DELAYS", ())
    async with bench_in(tmp_path, database_url) as bench:
        yield bench


def key() -> tuple[tuple[str, str], ...]:
    """Metadata with an idempotency key of its own."""
    return accord.idempotency_key(uuid7())


def retry_work(work_id: str, reason: str = "cause removed") -> work_pb2.RetryWorkRequest:
    return work_pb2.RetryWorkRequest(work_id=work_id, reason=reason)


def discard_work(work_id: str, reason: str = "not needed") -> work_pb2.DiscardWorkRequest:
    return work_pb2.DiscardWorkRequest(work_id=work_id, reason=reason)


# Work.


async def test_parked_work_is_shown_with_its_error_and_history(bench: Bench) -> None:
    """The operator finds the item, its failure, its trace, its payload and what waits behind it."""
    bench.broken.add("k")
    await bench.enqueue("k", "one", "two", "three")
    (item,) = await bench.parked()

    assert (item.queue, item.key, item.attempts) == ("letters", "k", 1)
    assert item.last_error == "Permanent: k is broken"
    found = await bench.work.GetWork(work_pb2.GetWorkRequest(work_id=item.work_id))
    assert found.item == item
    assert [(failure.attempt, failure.error) for failure in found.history] == [(1, item.last_error)]
    assert abs(found.history[0].at.seconds - time.time()) < 60
    assert found.traceparent.startswith("00-")
    assert found.payload == b"one"
    assert (found.behind, found.held_up_by) == (2, "")
    assert found.owner.endswith(bench.runtime.settings.address)
    assert not found.HasField("lease_until")

    last = (await bench.listed("READY"))[-1]
    behind = await bench.work.GetWork(work_pb2.GetWorkRequest(work_id=last.work_id))
    assert (behind.behind, behind.held_up_by) == (0, item.work_id)


async def test_a_retry_succeeds_after_the_cause_is_gone(bench: Bench) -> None:
    """Parked work that is retried is done, and so is what waited behind it."""
    bench.broken.add("k")
    await bench.enqueue("k", "one", "two")
    (item,) = await bench.parked()
    bench.broken.clear()

    response = await bench.work.RetryWork(retry_work(item.work_id), metadata=key())

    assert response.item.state == work_pb2.WORK_STATE_READY
    assert response.item.attempts == 0
    await eventually(lambda: _is(bench.done == ["one", "two"]), "both to be done")


async def test_a_retry_that_fails_is_parked_again_and_its_history_grows(bench: Bench) -> None:
    """Nothing is lost when the operator was wrong."""
    bench.broken.add("k")
    await bench.enqueue("k", "one")
    (item,) = await bench.parked()
    await bench.work.RetryWork(retry_work(item.work_id), metadata=key())

    async def look() -> bool:
        found = await bench.work.GetWork(work_pb2.GetWorkRequest(work_id=item.work_id))
        return found.item.state == work_pb2.WORK_STATE_PARKED and len(found.history) == 2

    await eventually(look, "it to be parked again")


async def test_a_retry_does_not_wait_for_the_next_attempt(bench: Bench) -> None:
    """Work that waits for its next attempt can be tried now."""
    bench.broken.add("k")
    await bench.runtime.database.write(
        lambda tx: bench.runtime.executor.enqueue(tx, "later", "j", b"one", due_at=time.time() + 99)
    )
    (item,) = await bench.listed("READY", queue="later")
    assert not bench.done
    await bench.work.RetryWork(retry_work(item.work_id), metadata=key())
    await eventually(lambda: _is(bench.done == ["one"]), "it to be done")


async def test_discarding_lets_the_successors_run(bench: Bench) -> None:
    """The item is given back once more, is gone, and the others of its key are done."""
    bench.broken.add("one")
    await bench.enqueue("k", "one", "two", "three")
    (item,) = await bench.parked()

    response = await bench.work.DiscardWork(discard_work(item.work_id), metadata=key())

    assert response.item == item
    await eventually(lambda: _is(bench.done == ["two", "three"]), "the others to be done")
    async with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
        await bench.work.GetWork(work_pb2.GetWorkRequest(work_id=item.work_id))


async def test_an_intervention_is_audited_exactly_once(bench: Bench) -> None:
    """A repeat with the same key has the first answer and no further effect; a refusal has none."""
    bench.broken.add("k")
    await bench.enqueue("k", "one")
    (item,) = await bench.parked()
    once = key()
    request = discard_work(item.work_id, "customer withdrew it")

    first = await bench.work.DiscardWork(request, metadata=once)
    answers = await asyncio.gather(
        *(bench.work.DiscardWork(request, metadata=once) for _ in range(5))
    )
    assert all(answer == first for answer in answers)
    async with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
        await bench.work.DiscardWork(request, metadata=key())

    (record,) = await bench.audit()
    assert record.principal == "anonymous"
    assert record.method == "accord.ops.v1.WorkService/DiscardWork"
    assert record.target == item.work_id
    assert record.reason == "customer withdrew it"
    assert record.before == "letters k parked, failed 1x: Permanent: k is broken"
    assert record.after == "discarded"
    assert abs(record.at.seconds - time.time()) < 60


async def test_only_parked_work_can_be_discarded(bench: Bench) -> None:
    """What waits its turn or is being tried is left alone, with no trace in the audit."""
    bench.held["k"] = asyncio.Event()
    await bench.enqueue("k", "one", "two")

    async def leased() -> list[work_pb2.WorkItem]:
        return await bench.listed("LEASED")

    (running_now,) = await eventually(leased, "work in progress")
    found = await bench.work.GetWork(work_pb2.GetWorkRequest(work_id=running_now.work_id))
    assert found.lease_until.seconds > time.time()
    (waiting,) = await bench.listed("READY")
    for item in (running_now, waiting):
        async with precondition("NOT_PARKED"):
            await bench.work.DiscardWork(discard_work(item.work_id), metadata=key())
    async with precondition("WORK_IN_PROGRESS"):
        await bench.work.RetryWork(retry_work(running_now.work_id), metadata=key())
    assert not await bench.audit()
    bench.held["k"].set()
    await eventually(lambda: _is(bench.done == ["one", "two"]), "both to be done")


async def test_work_is_listed_in_pages(bench: Bench) -> None:
    """Tokens lead through all items once, oldest first; a token is good for its filters only."""
    bench.broken |= {f"k{number}" for number in range(7)}
    for number in range(7):
        await bench.enqueue(f"k{number}", "one")
    parked = await bench.parked(7)

    seen: list[str] = []
    request = work_pb2.ListWorkRequest(page_size=3, state=work_pb2.WORK_STATE_PARKED)
    while True:
        page = await bench.work.ListWork(request)
        assert len(page.items) <= 3
        seen += [item.work_id for item in page.items]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [item.work_id for item in parked] == sorted(seen)

    request.state = work_pb2.WORK_STATE_READY
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
        await bench.work.ListWork(request)


async def test_work_is_filtered(bench: Bench) -> None:
    """By state, by queue and by age."""
    bench.broken.add("k")
    await bench.enqueue("k", "one", "two")
    await bench.parked()
    assert len(await bench.listed()) == 2
    assert len(await bench.listed("READY")) == 1
    assert len(await bench.listed("PARKED", queue="letters")) == 1
    assert not await bench.listed("LEASED")
    assert not await bench.listed(queue="others")
    assert len(await bench.listed(min_age=Duration(nanos=1000))) == 2
    assert not await bench.listed(min_age=Duration(seconds=60))


# Many items at once.


def retry_matching(error: str = "broken", **more: Any) -> work_pb2.RetryWorkMatchingRequest:
    wanted = work_pb2.WorkFilter(queue="letters", error=error)
    return work_pb2.RetryWorkMatchingRequest(filter=wanted, reason="cause removed", **more)


async def park(bench: Bench, *names: str) -> list[work_pb2.WorkItem]:
    """Work of these keys, parked; oldest first."""
    bench.broken.update(names)
    for name in names:
        await bench.enqueue(name, name)
    return await bench.parked(len(names))


async def test_a_dry_run_says_how_many_there_are_and_changes_nothing(bench: Bench) -> None:
    """By queue, error, age, ids and keys: the number, and the first of them."""
    items = await park(bench, *(f"k{number:02}" for number in range(12)))
    answer = await bench.work.RetryWorkMatching(retry_matching(dry_run=True), metadata=key())
    assert (answer.matching, answer.next_page_token) == (12, "")
    assert list(answer.items) == items[:10]
    ids = [item.work_id for item in items]
    for wanted, count in (
        (work_pb2.WorkFilter(work_ids=ids[:3]), 3),
        (work_pb2.WorkFilter(keys=["k01", "k02", "nobody"]), 2),
        (work_pb2.WorkFilter(keys=["k01"], work_ids=ids[:1]), 0),
        (work_pb2.WorkFilter(error="k07\\n is"), 0),
        (work_pb2.WorkFilter(error="k07 is broken"), 1),
        (work_pb2.WorkFilter(queue="later"), 0),
        (work_pb2.WorkFilter(min_age=Duration(seconds=60)), 0),
        (work_pb2.WorkFilter(state=work_pb2.WORK_STATE_READY), 0),
    ):
        request = work_pb2.DiscardWorkMatchingRequest(filter=wanted, reason="r", dry_run=True)
        found = await bench.work.DiscardWorkMatching(request, metadata=key())
        assert found.matching == count, wanted
    assert await bench.parked(12) == items
    assert await bench.audit() == []
    assert await bench.listed("PARKED", error="k07") == [items[7]]


async def test_many_are_retried_in_batches_each_once(bench: Bench) -> None:
    """A batch is done once for its key, with a record for each item; the next goes on behind it."""
    items = await park(bench, "a", "b", "c", "d", "e")
    bench.broken.clear()
    seen, request = list[str](), retry_matching(page_size=2)
    while True:
        named = key()
        answer = await bench.work.RetryWorkMatching(request, metadata=named)
        assert await bench.work.RetryWorkMatching(request, metadata=named) == answer
        assert answer.matching == (0 if request.page_token else 5)
        seen += [item.work_id for item in answer.items]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert seen == [item.work_id for item in items]
    await eventually(lambda: _is(sorted(bench.done) == [*"abcde"]), "all to be done")
    records = await bench.audit(page_size=500)
    assert [each.target for each in reversed(records)] == seen
    assert {each.reason for each in records} == {"cause removed"}
    assert {each.method for each in records} == {"accord.ops.v1.WorkService/RetryWorkMatching"}
    request = retry_matching("another", page_token=request.page_token or "x")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
        await bench.work.RetryWorkMatching(request, metadata=key())


async def test_no_more_than_the_rate_become_due(bench: Bench) -> None:
    """Items become due one after the other; a batch holds five seconds, and says so."""
    await park(bench, *(f"k{number}" for number in range(12)))
    request = retry_matching(per_second=2)
    answer = await bench.work.RetryWorkMatching(request, metadata=key())
    due = [item.due_at.ToNanoseconds() / 1e9 for item in answer.items]
    assert [round(at - due[0], 2) for at in due] == [number / 2 for number in range(10)]
    assert (answer.pause.seconds, bool(answer.next_page_token)) == (5, True)
    request.page_token = answer.next_page_token
    last = await bench.work.RetryWorkMatching(request, metadata=key())
    assert (len(last.items), last.next_page_token, last.pause.seconds) == (2, "", 0)


async def test_what_is_at_work_and_what_is_a_sagas_is_passed_over(bench: Bench) -> None:
    """A retry leaves what is being tried alone; nothing of a saga is discarded in bulk."""
    bench.broken.add("b")
    saga_id = await bench.start_saga()
    [step] = await bench.parked()
    request = work_pb2.DiscardWorkMatchingRequest(filter=work_pb2.WorkFilter(), reason="r")
    answer = await bench.work.DiscardWorkMatching(request, metadata=key())
    assert (len(answer.items), answer.passed_over) == (0, 1)
    [letter] = [item for item in await park_one(bench) if item.queue == "letters"]
    answer = await bench.work.DiscardWorkMatching(request, metadata=key())
    assert (list(answer.items), answer.passed_over) == ([letter], 1)
    bench.broken.clear()
    wanted = work_pb2.WorkFilter(queue="saga", keys=[saga_id])
    retry = work_pb2.RetryWorkMatchingRequest(filter=wanted, reason="back")
    done = await bench.work.RetryWorkMatching(retry, metadata=key())
    assert [item.work_id for item in done.items] == [step.work_id]
    await bench.in_phase(saga_id, "DONE")
    assert [each.target for each in await bench.audit()] == [saga_id, letter.work_id]


async def park_one(bench: Bench) -> list[work_pb2.WorkItem]:
    bench.broken.add("letter")
    await bench.enqueue("letter", "letter")
    return await bench.parked(2)


async def test_unknown_work_is_not_found(bench: Bench) -> None:
    """Every RPC on an item says so."""
    for call in (
        bench.work.GetWork(work_pb2.GetWorkRequest(work_id=NOBODY)),
        bench.work.RetryWork(retry_work(NOBODY), metadata=key()),
        bench.work.DiscardWork(discard_work(NOBODY), metadata=key()),
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
            await call


@pytest.mark.parametrize("reason", ["", "x" * 501, "two\nlines", "nul\x00"])
async def test_a_reason_is_required(bench: Bench, reason: str) -> None:
    """An intervention without a proper reason is refused and does nothing."""
    bench.broken.add("k")
    await bench.enqueue("k", "one")
    (item,) = await bench.parked()
    for call in (
        bench.work.RetryWork(retry_work(item.work_id, reason), metadata=key()),
        bench.work.DiscardWork(discard_work(item.work_id, reason), metadata=key()),
        bench.sagas.AbandonSaga(
            saga_pb2.AbandonSagaRequest(saga_id="x", reason=reason), metadata=key()
        ),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
            await call
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REQUIRED"):
        await bench.work.RetryWork(retry_work(item.work_id))
    assert await bench.parked() == [item]
    assert not await bench.audit()


async def test_audit_is_listed_in_pages_newest_first(bench: Bench) -> None:
    """Tokens lead through all records once."""
    bench.broken.add("k")
    await bench.enqueue("k", "one", "two", "three")
    for number in range(3):
        (item,) = await bench.parked()
        await bench.work.DiscardWork(discard_work(item.work_id, str(number)), metadata=key())
        if number < 2:
            gone = item.work_id
            await eventually(
                lambda gone=gone: _parked_other_than(bench, gone),  # type: ignore[misc]
                "the next to be parked",
            )
    stub = AuditServiceStub(bench.mesh.channel("bench"))
    first = await stub.ListAudit(audit_pb2.ListAuditRequest(page_size=2))
    rest = await stub.ListAudit(
        audit_pb2.ListAuditRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [record.reason for record in (*first.records, *rest.records)] == ["2", "1", "0"]
    assert not rest.next_page_token


# Sagas.


async def test_a_stuck_saga_is_shown_with_its_history_and_error(bench: Bench) -> None:
    """Where it stands, what came of its steps, and the work that is parked."""
    bench.broken.add("c")
    saga_id = await bench.start_saga()
    await bench.parked()

    found = await bench.saga(saga_id)

    assert (found.saga.definition, found.saga.version, found.saga.step) == ("errand", 1, "c")
    assert found.saga.phase == saga_pb2.SAGA_PHASE_FORWARD
    assert [(event.step, event.outcome) for event in found.history] == [("a", "ok"), ("b", "ok")]
    assert found.work.state == work_pb2.WORK_STATE_PARKED
    assert found.work.last_error == "Permanent: c is broken"
    async with precondition("SAGA_WORK"):
        await bench.work.DiscardWork(discard_work(found.work.work_id), metadata=key())


async def test_a_stuck_saga_goes_on_after_a_retry(bench: Bench) -> None:
    """Once the cause is gone, a retry carries it to its end; what has ended cannot be retried."""
    bench.broken.add("c")
    saga_id = await bench.start_saga()
    await bench.parked()
    bench.broken.clear()
    request = saga_pb2.RetrySagaRequest(saga_id=saga_id, reason="c was repaired")

    await bench.sagas.RetrySaga(request, metadata=key())

    found = await bench.in_phase(saga_id, "DONE")
    assert bench.done == ["a", "b", "c", "d"]
    assert not found.HasField("work")
    async with precondition("SAGA_ENDED"):
        await bench.sagas.RetrySaga(request, metadata=key())
    (record,) = await bench.audit(saga_id)
    assert record.before == ("errand forward at c, parked, failed 1x: Permanent: c is broken")
    assert record.after == "errand forward at c, ready"


async def test_a_saga_without_work_gets_it_back(bench: Bench) -> None:
    """A retry helps even a saga whose work somebody has deleted."""
    bench.broken.add("c")
    saga_id = await bench.start_saga()
    await bench.parked()
    await bench.runtime.database.write(lambda tx: tx.execute("DELETE FROM work"))
    bench.broken.clear()
    request = saga_pb2.RetrySagaRequest(saga_id=saga_id, reason="its work was lost")
    await bench.sagas.RetrySaga(request, metadata=key())
    await bench.in_phase(saga_id, "DONE")


async def test_a_step_is_skipped(bench: Bench) -> None:
    """The step is not called, what belongs to it is written, and the saga goes on."""
    bench.broken.add("c")
    saga_id = await bench.start_saga()
    await bench.parked()
    once = key()
    request = saga_pb2.SkipStepRequest(saga_id=saga_id, step="c", reason="done by phone")

    response = await bench.sagas.SkipStep(request, metadata=once)
    assert response.saga.step == "d"
    assert await bench.sagas.SkipStep(request, metadata=once) == response

    found = await bench.in_phase(saga_id, "DONE")
    outcomes = [(event.step, event.outcome) for event in found.history]
    assert outcomes == [("a", "ok"), ("b", "ok"), ("c", "skipped"), ("d", "ok")]
    await eventually(
        lambda: _is(sorted(bench.done) == ["a", "b", "c by hand", "d"]), "it to be written"
    )
    assert len(await bench.audit(saga_id)) == 1
    assert not await bench.listed()


async def test_a_compensation_is_skipped(bench: Bench) -> None:
    """On the way back any step can be skipped: what is undone after it is undone."""
    bench.broken |= {"b", "-b"}
    saga_id = await bench.start_saga()
    await bench.parked()
    back = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="give it up")
    await bench.sagas.CompensateSaga(back, metadata=key())
    await bench.in_phase(saga_id, "BACKWARD")
    await bench.parked()

    request = saga_pb2.SkipStepRequest(saga_id=saga_id, step="b", reason="undone by hand")
    await bench.sagas.SkipStep(request, metadata=key())

    await bench.in_phase(saga_id, "UNDONE")
    await eventually(
        lambda: _is(sorted(bench.done) == ["-a", "a", "cancelled", "undone"]), "all to be undone"
    )


async def test_what_must_not_be_skipped_is_not(bench: Bench) -> None:
    """Another step than the named one, a step that others build on, and one that is not parked."""
    bench.broken.add("b")
    saga_id = await bench.start_saga()
    await bench.parked()
    for step, reason in (("a", "STEP_CHANGED"), ("b", "NOT_SKIPPABLE")):
        request = saga_pb2.SkipStepRequest(saga_id=saga_id, step=step, reason="skip it")
        async with precondition(reason):
            await bench.sagas.SkipStep(request, metadata=key())

    bench.held["c"] = asyncio.Event()
    bench.broken.clear()
    retry = saga_pb2.RetrySagaRequest(saga_id=saga_id, reason="b was repaired")
    await bench.sagas.RetrySaga(retry, metadata=key())

    async def at_c() -> bool:
        found = await bench.saga(saga_id)
        return found.saga.step == "c" and found.work.state == work_pb2.WORK_STATE_LEASED

    await eventually(at_c, "c to be called")
    request = saga_pb2.SkipStepRequest(saga_id=saga_id, step="c", reason="skip it")
    async with precondition("NOT_PARKED"):
        await bench.sagas.SkipStep(request, metadata=key())
    async with precondition("WORK_IN_PROGRESS"):
        await bench.sagas.RetrySaga(retry, metadata=key())
    bench.held["c"].set()
    await bench.in_phase(saga_id, "DONE")
    await eventually(lambda: _is(bench.done == ["a", "b", "c", "d"]), "nothing to be skipped")
    assert len(await bench.audit(saga_id)) == 1


async def test_a_saga_is_turned_back_before_its_pivot(bench: Bench) -> None:
    """The step that is stuck and all before it are undone; a second time is refused."""
    bench.broken.add("b")
    saga_id = await bench.start_saga()
    await bench.parked()
    request = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="give it up")

    response = await bench.sagas.CompensateSaga(request, metadata=key())

    assert response.saga.cancelled
    await bench.in_phase(saga_id, "UNDONE")
    await eventually(
        lambda: _is(sorted(bench.done) == ["-a", "-b", "a", "cancelled", "undone"]),
        "all to be undone",
    )
    async with precondition("SAGA_ENDED"):
        await bench.sagas.CompensateSaga(request, metadata=key())
    (record,) = await bench.audit(saga_id)
    assert record.after == "errand forward at b, to be undone, ready"


async def test_a_saga_turns_back_once(bench: Bench) -> None:
    """While it is being undone, it cannot be told to turn back again."""
    bench.broken |= {"b", "-a"}
    saga_id = await bench.start_saga()
    await bench.parked()
    request = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="give it up")
    await bench.sagas.CompensateSaga(request, metadata=key())
    await bench.in_phase(saga_id, "BACKWARD")
    async with precondition("BEING_UNDONE"):
        await bench.sagas.CompensateSaga(request, metadata=key())


async def test_a_saga_is_not_turned_back_from_its_pivot_on(bench: Bench) -> None:
    """Whether the pivot has happened is not known, so there is only forward."""
    bench.broken.add("c")
    saga_id = await bench.start_saga()
    await bench.parked()
    request = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="give it up")
    async with precondition("TOO_LATE"):
        await bench.sagas.CompensateSaga(request, metadata=key())
    assert not await bench.audit()
    assert "-a" not in bench.done


async def test_an_abandoned_saga_has_no_work(bench: Bench) -> None:
    """It has ended where it stood: nothing more is done, undone, or can be done to it."""
    bench.broken.add("b")
    saga_id = await bench.start_saga()
    await bench.parked()
    request = saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason="settled on paper")

    response = await bench.sagas.AbandonSaga(request, metadata=key())

    assert response.saga.phase == saga_pb2.SAGA_PHASE_ABANDONED
    assert response.saga.step == "b"
    assert not await bench.listed()
    found = await bench.saga(saga_id)
    assert (found.history[-1].step, found.history[-1].outcome) == ("b", "abandoned")
    for call in (
        bench.sagas.AbandonSaga(request, metadata=key()),
        bench.sagas.RetrySaga(
            saga_pb2.RetrySagaRequest(saga_id=saga_id, reason="r"), metadata=key()
        ),
        bench.sagas.CompensateSaga(
            saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="r"), metadata=key()
        ),
        bench.sagas.SkipStep(
            saga_pb2.SkipStepRequest(saga_id=saga_id, step="b", reason="r"), metadata=key()
        ),
    ):
        async with precondition("SAGA_ENDED"):
            await call
    assert bench.done == ["a"]
    assert len(await bench.audit(saga_id)) == 1


async def test_the_answer_of_an_abandoned_step_is_ignored(bench: Bench) -> None:
    """A step that was under way when its saga was given up changes nothing any more."""
    bench.held["b"] = asyncio.Event()
    saga_id = await bench.start_saga()

    async def at_b() -> bool:
        found = await bench.saga(saga_id)
        return found.saga.step == "b" and found.work.state == work_pb2.WORK_STATE_LEASED

    await eventually(at_b, "b to be called")
    request = saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason="settled on paper")
    await bench.sagas.AbandonSaga(request, metadata=key())
    bench.held["b"].set()
    await bench.runtime.executor.drain()

    assert bench.done == ["a", "b"]
    found = await bench.saga(saga_id)
    assert found.saga.phase == saga_pb2.SAGA_PHASE_ABANDONED
    assert not await bench.listed()


async def test_sagas_are_listed_by_what_they_are_and_in_pages(bench: Bench) -> None:
    """By definition, phase and age; tokens lead through all of them once."""
    done = [await bench.start_saga() for _ in range(5)]
    for saga_id in done:
        await bench.in_phase(saga_id, "DONE")
    bench.broken.add("b")
    stuck = await bench.start_saga()
    await bench.parked()

    async def listed(**filters: Any) -> list[str]:
        page = await bench.sagas.ListSagas(saga_pb2.ListSagasRequest(**filters))
        return [saga.saga_id for saga in page.sagas]

    assert await listed() == [*done, stuck]
    assert await listed(definition="errand", phase=saga_pb2.SAGA_PHASE_FORWARD) == [stuck]
    assert await listed(phase=saga_pb2.SAGA_PHASE_DONE) == done
    assert not await listed(definition="order")
    assert not await listed(min_age=Duration(seconds=60))
    seen: list[str] = []
    request = saga_pb2.ListSagasRequest(page_size=2)
    while True:
        page = await bench.sagas.ListSagas(request)
        seen += [saga.saga_id for saga in page.sagas]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [*done, stuck]


async def test_sagas_are_listed_newest_first_and_by_their_work(bench: Bench) -> None:
    """In pages that miss none; each with the state of its work and why that has failed."""
    done = [await bench.start_saga() for _ in range(3)]
    for saga_id in done:
        await bench.in_phase(saga_id, "DONE")
    bench.broken.add("b")
    stuck = await bench.start_saga()
    await bench.parked()

    async def listed(**filters: Any) -> list[saga_pb2.Saga]:
        request, found = saga_pb2.ListSagasRequest(page_size=2, **filters), list[saga_pb2.Saga]()
        while True:
            page = await bench.sagas.ListSagas(request)
            found += page.sagas
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    found = await listed(newest_first=True)
    assert [each.saga_id for each in found] == [stuck, *reversed(done)]
    assert (found[0].work_state, found[0].last_error) == (
        work_pb2.WORK_STATE_PARKED,
        "Permanent: b is broken",
    )
    assert (found[1].work_state, found[1].last_error) == (work_pb2.WORK_STATE_UNSPECIFIED, "")
    assert [each.saga_id for each in await listed()] == [*done, stuck]
    parked = await listed(work_state=work_pb2.WORK_STATE_PARKED)
    assert [each.saga_id for each in parked] == [stuck]
    assert not await listed(work_state=work_pb2.WORK_STATE_LEASED)
    assert len(await listed(max_age=Duration(seconds=600))) == 4
    await asyncio.sleep(0.01)
    assert not await listed(max_age=Duration(nanos=1_000_000))
    first = await bench.sagas.ListSagas(saga_pb2.ListSagasRequest(page_size=2))
    other = saga_pb2.ListSagasRequest(page_token=first.next_page_token, newest_first=True)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
        await bench.sagas.ListSagas(other)


async def test_sagas_are_counted(bench: Bench) -> None:
    """By definition and phase, with those that wait for an operator; of old ones none."""
    assert not (await bench.sagas.GetSagaCounts(saga_pb2.GetSagaCountsRequest())).counts
    for saga_id in [await bench.start_saga() for _ in range(2)]:
        await bench.in_phase(saga_id, "DONE")
    bench.broken.add("b")
    await bench.start_saga()
    await bench.parked()
    counts = (await bench.sagas.GetSagaCounts(saga_pb2.GetSagaCountsRequest())).counts
    assert [(each.definition, each.phase, each.count, each.parked) for each in counts] == [
        ("errand", saga_pb2.SAGA_PHASE_FORWARD, 1, 1),
        ("errand", saga_pb2.SAGA_PHASE_DONE, 2, 0),
    ]
    await asyncio.sleep(0.01)
    soon = saga_pb2.GetSagaCountsRequest(ended_within=Duration(nanos=1_000_000))
    [left] = (await bench.sagas.GetSagaCounts(soon)).counts
    assert (left.phase, left.count) == (saga_pb2.SAGA_PHASE_FORWARD, 1)


async def test_unknown_sagas_are_not_found(bench: Bench) -> None:
    """Every RPC on a saga says so."""
    for call in (
        bench.sagas.GetSaga(saga_pb2.GetSagaRequest(saga_id="x")),
        bench.sagas.RetrySaga(saga_pb2.RetrySagaRequest(saga_id="x", reason="r"), metadata=key()),
        bench.sagas.SkipStep(
            saga_pb2.SkipStepRequest(saga_id="x", step="a", reason="r"), metadata=key()
        ),
        bench.sagas.CompensateSaga(
            saga_pb2.CompensateSagaRequest(saga_id="x", reason="r"), metadata=key()
        ),
        bench.sagas.AbandonSaga(
            saga_pb2.AbandonSagaRequest(saga_id="x", reason="r"), metadata=key()
        ),
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
            await call


async def test_a_saga_of_an_unknown_version_can_be_seen_and_abandoned(bench: Bench) -> None:
    """A process that lacks its definition shows the step's number, and refuses what needs more."""
    bench.broken.add("b")
    saga_id = await bench.start_saga()
    await bench.parked()

    def later(tx: Tx) -> None:
        tx.execute("UPDATE saga SET version = 2")
        tx.execute("UPDATE work SET queue = 'saga/errand/2'")

    await bench.runtime.database.write(later)
    assert (await bench.saga(saga_id)).saga.step == "1"
    for call in (
        bench.sagas.SkipStep(
            saga_pb2.SkipStepRequest(saga_id=saga_id, step="1", reason="r"), metadata=key()
        ),
        bench.sagas.CompensateSaga(
            saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="r"), metadata=key()
        ),
    ):
        async with precondition("UNKNOWN_DEFINITION"):
            await call
    await bench.sagas.AbandonSaga(
        saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason="r"), metadata=key()
    )
    assert not await bench.listed()


async def test_abandoning_races_with_the_outcome_of_a_step(bench: Bench) -> None:
    """Whoever comes first, an abandoned saga is left without work and is never carried on."""
    bench.pause = 0.01

    async def race(number: int) -> tuple[str, bool]:
        saga_id = await bench.start_saga()
        await asyncio.sleep(number * 0.02)
        request = saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason="race")
        return saga_id, await won(bench.sagas.AbandonSaga(request, metadata=key()))

    raced = await asyncio.gather(*(race(number) for number in range(30)))

    assert any(abandoned for _, abandoned in raced)
    await eventually(lambda: _no_work(bench), "the work to be gone")
    for saga_id, abandoned in raced:
        found = await bench.in_phase(saga_id, "ABANDONED" if abandoned else "DONE")
        assert (found.history[-1].outcome == "abandoned") == abandoned
        assert len(await bench.audit(saga_id)) == abandoned


async def one_wins(*commands: Awaitable[Any]) -> None:
    """Of contradicting commands that are sent at once one is carried out, the others are told."""
    outcomes = await asyncio.gather(*commands, return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, grpc.RpcError)]
    assert len(refusals) == len(outcomes) - 1, outcomes
    told = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND
    assert {ServiceError.from_rpc(refusal).code for refusal in refusals} <= set(told)


@pytest.mark.parametrize("command", ["skip", "compensate", "abandon"])
async def test_of_operators_at_once_one_wins(bench: Bench, command: str) -> None:
    """Whoever skips, turns back or gives up what another just has is told; one record is kept."""
    bench.broken |= {"c" if command == "skip" else "b", "d", "-a"}
    for _ in range(5):
        saga_id = await bench.start_saga()
        await eventually(lambda saga_id=saga_id: stuck(bench, saga_id), "the saga to be stuck")  # type: ignore[misc]

        def call(saga_id: str = saga_id) -> Awaitable[Any]:
            if command == "skip":
                skip = saga_pb2.SkipStepRequest(saga_id=saga_id, step="c", reason="r")
                return bench.sagas.SkipStep(skip, metadata=key())
            if command == "compensate":
                back = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="r")
                return bench.sagas.CompensateSaga(back, metadata=key())
            abandon = saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason="r")
            return bench.sagas.AbandonSaga(abandon, metadata=key())

        await one_wins(*(call() for _ in range(3)))
        assert len(await bench.audit(saga_id)) == 1


async def test_of_a_retry_and_a_discard_at_once_one_wins(bench: Bench) -> None:
    """An item is tried again or given up, and whoever wanted the other is told."""
    for number in range(10):
        name = f"k{number}"
        bench.broken.add(name)
        await bench.enqueue(name, "one")
        (item,) = await bench.parked()
        commands: list[Awaitable[Any]] = [
            bench.work.RetryWork(retry_work(item.work_id), metadata=key()),
            bench.work.DiscardWork(discard_work(item.work_id), metadata=key()),
        ]
        bench.held[name] = asyncio.Event()  # So that it is not parked again meanwhile.
        await one_wins(*commands[:: 1 if number % 2 else -1])
        bench.broken.discard(name)
        bench.held[name].set()
        assert len(await bench.audit(item.work_id)) == 1


async def stuck(bench: Bench, saga_id: str) -> bool:
    """Whether the work of a saga is parked."""
    return (await bench.saga(saga_id)).work.state == work_pb2.WORK_STATE_PARKED


async def test_turning_back_races_with_the_pivot(bench: Bench) -> None:
    """A saga that was told to turn back is undone, and one that was not is done."""
    bench.pause = 0.01

    async def race(number: int) -> tuple[str, bool]:
        saga_id = await bench.start_saga()
        await asyncio.sleep(number * 0.02)
        request = saga_pb2.CompensateSagaRequest(saga_id=saga_id, reason="race")
        return saga_id, await won(bench.sagas.CompensateSaga(request, metadata=key()))

    raced = await asyncio.gather(*(race(number) for number in range(30)))

    assert any(turned for _, turned in raced)
    for saga_id, turned in raced:
        await bench.in_phase(saga_id, "UNDONE" if turned else "DONE")
        assert len(await bench.audit(saga_id)) == turned


async def won(call: Awaitable[Any]) -> bool:
    """Whether an intervention came in time; anything but "too late" fails the test."""
    try:
        await call
    except grpc.RpcError as error:
        if ServiceError.from_rpc(error).reason not in ("TOO_LATE", "SAGA_ENDED"):
            raise
        return False
    return True


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.BACKWARD])
def test_the_machine_abandons_where_it_stands(phase: Phase) -> None:
    """Pure: a saga under way ends at its step, and one that has ended cannot be abandoned."""
    after = state_machine.abandoned(Position(phase, 2))
    assert after == Position(Phase.ABANDONED, 2)
    assert after.ended
    for ended in (Phase.DONE, Phase.UNDONE, Phase.ABANDONED):
        with pytest.raises(ValueError, match="cannot be abandoned"):
            state_machine.abandoned(Position(ended, 0))


# The shop.


@pytest.fixture
async def impatient_shop(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    """The shop, with orders that are parked after one failed attempt of a step."""
    monkeypatch.setattr(orchestrator, "DELAYS", ())
    async with running_shop(tmp_path, *SHOP, database_url=database_url) as shop:
        yield shop


async def stuck_order(
    shop: Shop,
    party: "sandbox_pb2.Party.ValueType",
    behavior: "sandbox_pb2.Behavior.ValueType",
) -> str:
    """An order whose saga is parked because the outside world misbehaves."""
    await shop.product("tea", 499, on_hand=10)
    await behave(shop, party, behavior)
    request = order_request(await shop.customer(), {"tea": 2})
    order = (await shop.orders.CreateOrder(request, metadata=key())).order

    async def look() -> bool:
        found = await operator(shop).GetSaga(saga_pb2.GetSagaRequest(saga_id=order.order_id))
        return found.work.state == work_pb2.WORK_STATE_PARKED

    await eventually(look, "the order's saga to be parked")
    return order.order_id


def operator(shop: Shop) -> SagaServiceStub:
    return SagaServiceStub(shop.channel("orders"))


async def test_an_operator_turns_an_order_back(impatient_shop: Shop) -> None:
    """Money that was taken without an answer, and the stock, are given back; all books say so."""
    shop = impatient_shop
    order = await stuck_order(
        shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_LOSE_ANSWER
    )
    assert await ledger(shop, order) == Ledger(captures=1, money=998)
    assert await stock(shop, "tea") == (10, 2)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    request = saga_pb2.CompensateSagaRequest(saga_id=order, reason="the processor lost it")

    await operator(shop).CompensateSaga(request, metadata=key())

    seen = await updates(shop, order)
    assert kinds(seen) == ["Placed", "Created", "Undoing", "Cancelled"]
    assert seen[-1].failure.reason == orders_pb2.FAILURE_REASON_CANCELLED
    assert "processor" not in seen[-1].failure.detail
    assert await ledger(shop, order) == Ledger(captures=1)
    assert await stock(shop, "tea") == (10, 0)
    stub = PaymentServiceStub(shop.channel("payments"))
    payment = (await stub.GetPayment(payments_pb2.GetPaymentRequest(order_id=order))).payment
    assert payment.state == payments_pb2.PAYMENT_STATE_REFUNDED


async def test_an_operator_retries_an_order(impatient_shop: Shop) -> None:
    """Once the processor is back, a retry of the parked work carries the order to its end."""
    shop = impatient_shop
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    found = await operator(shop).GetSaga(saga_pb2.GetSagaRequest(saga_id=order))
    assert "charge" in found.saga.step
    assert "UNAVAILABLE" in found.work.last_error

    work = WorkServiceStub(shop.channel("orders"))
    await work.RetryWork(retry_work(found.work.work_id), metadata=key())

    assert kinds(await updates(shop, order))[-1] == "Confirmed"
    assert await ledger(shop, order) == Ledger(1, 998, 1, 2)


async def test_an_operator_ships_an_order_by_hand(impatient_shop: Shop) -> None:
    """From the pivot on an order cannot be turned back, but shipping it can be skipped."""
    shop = impatient_shop
    order = await stuck_order(shop, sandbox_pb2.PARTY_CARRIER, sandbox_pb2.BEHAVIOR_FAIL)
    back = saga_pb2.CompensateSagaRequest(saga_id=order, reason="the carrier is away")
    async with precondition("TOO_LATE"):
        await operator(shop).CompensateSaga(back, metadata=key())

    skip = saga_pb2.SkipStepRequest(saga_id=order, step="ship", reason="a courier took it")
    await operator(shop).SkipStep(skip, metadata=key())

    assert kinds(await updates(shop, order))[-2:] == ["Shipped", "Confirmed"]
    assert await ledger(shop, order) == Ledger(1, 998)
    assert await stock(shop, "tea") == (8, 0)


# The contracts.


EVERYWHERE = (*admin.CONTRACTS, CONTRACT, jobs.CONTRACT)


def test_every_rpc_is_for_operators_and_bounded() -> None:
    """Who may call, how long it may take, and that what changes something needs a key."""
    for contract in (*admin.CONTRACTS, admin.SAGA_CONTRACT):
        for policy in check_service(contract):
            names = ("console", "operator")
            assert policy.allow == {f"spiffe://shop.internal/{name}" for name in names}
            assert policy.timeout == (10 if policy.method.endswith("Matching") else 5)
            assert (policy.key is Key.REQUIRED) == (not policy.safe)
            assert policy.safe == policy.method.rpartition("/")[2].startswith(
                ("Get", "List", "Find")
            )


async def test_services_say_what_they_serve(tmp_path: Path) -> None:
    """Reflection lists the operator's services; one without sagas does not serve SagaService."""
    async with running_shop(tmp_path, "customers", "orders") as shop:
        for name, expected in (
            ("customers", EVERYWHERE),
            ("orders", (*EVERYWHERE, admin.SAGA_CONTRACT)),
        ):
            ask = shop.channel(name).stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]))
            (answer,) = [found async for found in call]
            names = {service.name for service in answer.list_services_response.service}
            assert {found for found in names if found.startswith("accord.")} == set(expected)
        async with refused(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"):
            await SagaServiceStub(shop.channel("customers")).ListSagas(saga_pb2.ListSagasRequest())


async def _is(value: bool) -> bool:
    return value


async def _no_work(bench: Bench) -> bool:
    return not await bench.listed()


async def _parked_other_than(bench: Bench, gone: str) -> bool:
    return any(item.work_id != gone for item in await bench.listed("PARKED"))
