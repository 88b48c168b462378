"""Jobs of a real service, over gRPC, on both databases."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import accord
from accord.errors import ServiceError
from accord.ops.v1 import operation_pb2 as pb
from accord.ops.v1.operation_pb2_grpc import OperationServiceStub
from accord_runtime.database import open_database
from accord_runtime.grpc.ids import uuid7
from accord_runtime.jobs import operations
from accord_runtime.jobs.jobs import Jobs
from accord_runtime.process import running
from accord_runtime.service import Runtime
from accord_runtime.settings import Settings
from shop.customers.v1.customers_pb2 import CreateCustomerRequest, Customer
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.runtime.jobs.counting import Counting, service
from tests.runtime.work.support import rows
from tests.support.clock import Clock
from tests.support.mesh import settings_of
from tests.support.wait import until

NOBODY = "00000000-0000-7000-8000-000000000000"
State = pb.OperationState


class Scene:
    """A service that counts, and a caller of it."""

    def __init__(self, settings: Settings, runtime: Runtime, counting: Counting) -> None:
        self.settings = settings
        self.runtime = runtime
        self.counting = counting
        self.mesh = accord.Mesh("test", targets={"peer": settings.address})
        self.operations = OperationServiceStub(self.mesh.channel("peer"))

    async def start(self, name: str, key: str = "") -> str:
        """Ask for a job, and return its operation's id."""
        request = CreateCustomerRequest(name=name, email="ada@example.com")
        stub = CustomerServiceStub(self.mesh.channel("peer"))
        metadata = accord.idempotency_key(key or uuid7())
        return (await stub.CreateCustomer(request, metadata=metadata)).customer.customer_id

    async def get(self, operation_id: str) -> pb.Operation:
        request = pb.GetOperationRequest(operation_id=operation_id)
        return (await self.operations.GetOperation(request)).operation

    async def watched(self, operation_id: str, after: int = 0) -> list[pb.Operation]:
        """What a watch says from beginning to end."""
        request = pb.WatchOperationRequest(operation_id=operation_id, after_sequence=after)
        return [each.operation async for each in self.operations.WatchOperation(request)]

    async def steps(self) -> list[str]:
        """The steps that have had their effect."""
        found = await self.runtime.database.read(
            lambda tx: tx.all("SELECT text FROM results ORDER BY text")
        )
        return [row["text"] for row in found]


@asynccontextmanager
async def counts(settings: Settings, **changes: Any) -> AsyncIterator[Scene]:
    built: list[Counting] = []
    async with (
        AsyncExitStack() as stack,
        running(service(settings.name, built, **changes), settings) as runtime,
    ):
        scene = Scene(settings, runtime, built[0])
        stack.push_async_callback(scene.mesh.close)
        yield scene
        built[0].go.set()


@pytest.fixture
async def scene(tmp_path: Path, database_url: str, service: str) -> AsyncIterator[Scene]:
    url = "" if database_url.startswith("sqlite") else database_url
    settings = settings_of(service, tmp_path, database_url=url)
    async with counts(settings, delays=(0.0, 0.0)) as scene:
        yield scene


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return ServiceError.from_rpc(raised.value)


async def test_a_job_is_watched_to_its_result(scene: Scene) -> None:
    """A watch shows growing progress and at last the result, which stays to be asked for."""
    scene.counting.go.clear()
    operation_id = await scene.start("abc")
    watching = asyncio.create_task(scene.watched(operation_id))
    await until(lambda: scene.counting.attempts, "the first step")
    scene.counting.go.set()
    seen = await watching

    assert (seen[0].state, seen[0].done) == (State.OPERATION_STATE_RUNNING, False)
    sequences = [each.sequence for each in seen]
    assert sequences == sorted(set(sequences))
    last = seen[-1]
    assert (last.state, last.done) == (State.OPERATION_STATE_SUCCEEDED, True)
    assert (last.done_units, last.total_units) == (3, 3)
    result = Customer()
    assert last.response.Unpack(result)
    assert result.name == "counted to 3"
    assert await scene.get(operation_id) == last
    assert await scene.steps() == ["1", "2", "3"]
    assert await rows(scene.runtime.database) == []


async def test_a_watch_is_resumed(scene: Scene) -> None:
    """A watch goes on after the last change that was seen, and of the future it knows nothing."""
    operation_id = await scene.start("abc")
    (*_, last) = await scene.watched(operation_id)
    assert await scene.watched(operation_id, after=last.sequence) == []
    assert await scene.watched(operation_id, after=last.sequence - 1) == [last]
    request = pb.WatchOperationRequest(operation_id=operation_id, after_sequence=99)
    error = await refusal(scene.operations.WatchOperation(request).read())
    assert error.reason == "SEQUENCE_IN_FUTURE"


async def test_a_repeated_start_is_one_job(scene: Scene) -> None:
    """A start that is repeated under its key answers the same operation; there is one job."""
    first, second = [await scene.start("abc", key="once") for _ in range(2)]
    assert first == second
    await scene.watched(first)
    assert await scene.steps() == ["1", "2", "3"]


async def test_cancel(scene: Scene) -> None:
    """A job that is cancelled has ended at once, and the step under way has no effect."""
    scene.counting.go.clear()
    operation_id = await scene.start("abc")
    await until(lambda: scene.counting.attempts, "the first step")
    watching = asyncio.create_task(scene.watched(operation_id))
    request = pb.CancelOperationRequest(operation_id=operation_id)
    cancelled = (await scene.operations.CancelOperation(request)).operation
    assert cancelled.state == State.OPERATION_STATE_CANCELLED
    assert (await watching)[-1] == cancelled
    scene.counting.go.set()

    async def idle() -> bool:
        return await rows(scene.runtime.database) == []

    await until(idle, "the step to end")
    assert await scene.steps() == []
    again = (await scene.operations.CancelOperation(request)).operation
    assert again == cancelled == await scene.get(operation_id)


@pytest.mark.parametrize(
    ("name", "attempts", "reason"),
    [
        ("refused", 1, "NOTHING_TO_COUNT"),
        ("broken", 3, "INTERNAL"),
        ("large", 1, "RESULT_TOO_LARGE"),
    ],
)
async def test_a_job_that_fails(scene: Scene, name: str, attempts: int, reason: str) -> None:
    """A refusal ends a job at once, another error after its retries; it says no secrets."""
    (*_, last) = await scene.watched(await scene.start(name))
    assert (last.state, last.error.reason) == (State.OPERATION_STATE_FAILED, reason)
    assert scene.counting.attempts == attempts
    assert "secret" not in last.error.message
    assert await rows(scene.runtime.database) == []  # Nothing waits for an operator.


async def test_a_step_that_hangs(tmp_path: Path) -> None:
    """A step that takes too long is tried again, and fails its job in the end."""
    settings = settings_of("hanging", tmp_path)
    async with counts(settings, timeout=0.05, delays=(0.0,)) as scene:
        scene.counting.go.clear()
        (*_, last) = await scene.watched(await scene.start("abc"))
        assert last.error.reason == "INTERNAL"
        assert scene.counting.attempts == 2


async def test_too_many(tmp_path: Path) -> None:
    """More jobs than may wait are refused, with a time to come back."""
    async with counts(settings_of("crowded", tmp_path), most=2) as scene:
        scene.counting.go.clear()
        first, second = [await scene.start("abc") for _ in range(2)]
        error = await refusal(scene.start("abc"))
        assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_OPERATIONS")
        scene.counting.go.set()
        await scene.watched(first)
        await scene.watched(second)
        await scene.start("abc")


async def test_lists(scene: Scene) -> None:
    """Operations are listed newest first, page by page, by state, and without results."""
    ids = [await scene.start("a") for _ in range(3)]
    for operation_id in ids:
        await scene.watched(operation_id)
    refused = await scene.start("refused")
    await scene.watched(refused)
    request = pb.ListOperationsRequest(page_size=2)
    page = await scene.operations.ListOperations(request)
    request.page_token = page.next_page_token
    rest = await scene.operations.ListOperations(request)
    found = [*page.operations, *rest.operations]
    assert [each.operation_id for each in found] == [refused, *reversed(ids)]
    assert not any(each.HasField("response") for each in found)
    failed = pb.ListOperationsRequest(state=State.OPERATION_STATE_FAILED)
    (only,) = (await scene.operations.ListOperations(failed)).operations
    assert only.operation_id == refused
    error = await refusal(scene.get(NOBODY))
    assert error.reason == "NOT_FOUND"


async def test_operations_expire(scene: Scene, clock: Clock) -> None:
    """A result is kept for a day; a job that has not ended in a day fails, and is kept for one."""
    runtime = scene.runtime
    ended = await scene.start("a")
    await scene.watched(ended)
    scene.counting.go.clear()
    stuck = await scene.start("abc")
    jobs = Jobs(runtime.database, runtime.executor, runtime.notifier, clock)
    began = (await scene.get(stuck)).created_at.ToMicroseconds() / 1e6
    for passed, kept in ((operations.KEPT - 60, True), (operations.KEPT + 60, False)):
        clock.now = began + passed
        await runtime.database.write(jobs._sweep)
        found = await runtime.database.read(lambda tx: operations.find(tx, ended))
        assert (found is not None) == kept
    failed = await scene.get(stuck)
    assert failed.error.reason == "DEADLINE_EXCEEDED"
    clock.now = began + 2 * operations.KEPT + 120
    await runtime.database.write(jobs._sweep)
    assert (await refusal(scene.get(stuck))).reason == "NOT_FOUND"


async def test_another_replica_is_told(tmp_path: Path, postgres_url: str, service: str) -> None:
    """A watch at one replica sees what is done at another."""
    one = settings_of(service, tmp_path / "one", database_url=postgres_url)
    two = settings_of(service, tmp_path / "two", database_url=postgres_url)
    async with counts(one) as working, counts(two) as watching:
        watching.counting.go.clear()
        working.counting.go.clear()
        operation_id = await working.start("abc")
        task = asyncio.create_task(watching.watched(operation_id))
        await until(
            lambda: working.counting.attempts + watching.counting.attempts, "the first step"
        )
        working.counting.go.set()
        watching.counting.go.set()
        assert (await task)[-1].state == State.OPERATION_STATE_SUCCEEDED


async def test_kill(tmp_path: Path) -> None:
    """A job whose process is killed again and again ends well, each of its steps done once."""
    settings = settings_of("customers", tmp_path)
    environment = {
        **os.environ,
        "MESH_HOME": str(tmp_path),
        "MESH_LISTEN": settings.address,
        "COUNT_PAUSE": "0.2",
    }

    async def life() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.runtime.jobs.counting"),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async with grpc.aio.insecure_channel(
        settings.address, options=[("grpc.initial_reconnect_backoff_ms", 100)]
    ) as channel:
        stub = OperationServiceStub(channel)
        process = await life()
        try:
            request = CreateCustomerRequest(name="abcdef", email="ada@example.com")
            started = await CustomerServiceStub(channel).CreateCustomer(
                request, metadata=accord.idempotency_key("once"), wait_for_ready=True, timeout=30
            )
            get = pb.GetOperationRequest(operation_id=started.customer.customer_id)

            async def operation() -> pb.Operation:
                return (await stub.GetOperation(get, wait_for_ready=True, timeout=30)).operation

            for least in (1, 3):

                async def enough(least: int = least) -> bool:
                    return (await operation()).done_units >= least

                await until(enough, "some steps")
                process.kill()
                await process.wait()
                process = await life()

            async def ended() -> bool:
                return (await operation()).done

            await until(ended, "the end of the job", seconds=60)
            last = await operation()
        finally:
            process.kill()
            await process.wait()
    assert last.state == State.OPERATION_STATE_SUCCEEDED
    database = await open_database(settings.database, "customers")
    steps = await database.read(lambda tx: tx.all("SELECT text FROM results ORDER BY text"))
    await database.close()
    assert [row["text"] for row in steps] == ["1", "2", "3", "4", "5", "6"]
