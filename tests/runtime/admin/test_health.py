"""What a process says of itself when its database cannot commit, or the broker takes no events."""

import asyncio
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord.errors import ServiceError
from accord.ops.v1 import health_pb2 as pb
from accord.ops.v1.health_pb2_grpc import HealthServiceStub
from accord_runtime.admin import TAKES_CALLS, health
from accord_runtime.admin.health import Health, Lag, lag
from accord_runtime.database import Database, DatabaseCorrupt, open_database
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import running
from accord_runtime.service import Runtime
from accord_runtime.settings import Settings
from shop.customers.v1.customers_pb2 import CreateCustomerRequest, GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.runtime.events.support import append, note, publishing
from tests.runtime.little_service import service as little_service
from tests.support.mesh import settings_of
from tests.support.nats import NatsServer
from tests.support.small_disk import SmallDisk
from tests.support.wait import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CUSTOMERS = "shop.customers.v1.CustomerService"


class Client:
    """Calls the service as another one of the mesh does, and asks for its health."""

    def __init__(self, settings: Settings) -> None:
        self.mesh = accord.Mesh(
            "caller", targets={"little": settings.address}, health_checks={"little": TAKES_CALLS}
        )
        self._channel = self.mesh.channel("little")
        self.stub = CustomerServiceStub(self._channel)

    async def status(self, name: str = "") -> int:
        """What `grpc.health.v1` says."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        return int(answer.status)

    async def details(self) -> pb.GetHealthResponse:
        """What is said beyond that."""
        return await HealthServiceStub(self._channel).GetHealth(pb.GetHealthRequest())

    async def create(self) -> ServiceError | None:
        """Write something; why it could not be, else None."""
        request = CreateCustomerRequest(name="Ada" * 30, email=f"{uuid7()}@example.com")
        key = accord.idempotency_key(uuid7())
        try:
            await self.stub.CreateCustomer(request, metadata=key)
        except grpc.aio.AioRpcError as error:
            return accord.failure_of(error)
        return None


@asynccontextmanager
async def little(home: Path, database_url: str = "") -> AsyncIterator[tuple[Runtime, Client]]:
    """The service, and a client of it."""
    settings = settings_of("little", home, database_url=database_url)
    async with running(little_service("little"), settings) as runtime:
        client = Client(settings)
        yield runtime, client
        await client.mesh.close()


async def test_a_full_disk_is_said_and_is_over_by_itself(small_disk: SmallDisk) -> None:
    """While nothing can be committed the service is not serving, says why, and still reads."""
    async with little(small_disk.folder) as (_, client):
        assert await client.create() is None
        small_disk.fill()
        refused: list[ServiceError] = []
        while len(refused) < 3:
            if failure := await client.create():
                refused.append(failure)

        async def says(status: int) -> bool:
            return await client.status() == status == await client.status(CUSTOMERS)

        await until(lambda: says(NOT_SERVING), "the full disk to be noticed", seconds=5)
        assert await client.status(TAKES_CALLS) == SERVING
        assert "full" in (await client.details()).database_problem
        # Reading goes on, by the channels of the mesh.
        await client.stub.GetCustomer(GetCustomerRequest(customer_id=uuid7()))
        small_disk.free()
        await until(lambda: says(SERVING), "to serve again, without a call", seconds=5)
        assert not (await client.details()).database_problem
    codes = {(failure.code.name, failure.reason) for failure in refused}
    assert codes <= {("UNAVAILABLE", "DATABASE_UNAVAILABLE"), ("UNAVAILABLE", "CIRCUIT_OPEN")}


def stop(pid: int, number: signal.Signals) -> None:
    """Send a signal to a PostgreSQL server and all of its processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        os.kill(process, number)


async def test_a_server_that_is_away_is_said_and_is_over_by_itself(
    tmp_path: Path, postgres_url: str
) -> None:
    """PostgreSQL that stands still is noticed without a call, and so is its return."""
    async with little(tmp_path, postgres_url) as (runtime, client):
        assert await client.status() == SERVING
        pid = await runtime.database.read(
            lambda tx: int(tx.value("SELECT pg_read_file('postmaster.pid')").split()[0])
        )

        async def status(wanted: int) -> bool:
            return await client.status() == wanted

        stop(pid, signal.SIGSTOP)
        try:
            await until(lambda: status(NOT_SERVING), "the outage to be noticed", seconds=30)
        finally:
            stop(pid, signal.SIGCONT)
        await until(lambda: status(SERVING), "to serve again", seconds=10)


def damage(file: Path) -> None:
    """Overwrite the second half of an SQLite file."""
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(size // 8192 * 4096)
        raw.write(b"\xa5" * (size // 2 // 4096 * 4096))


async def test_damage_is_said_once_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers are told not to try again, the log names the file once, and health stays down."""
    async with little(tmp_path) as (runtime, client):
        # More than SQLite keeps in memory.
        rows = [{"id": str(n), "text": "x" * 3000} for n in range(2000)]
        await runtime.database.write(lambda tx: [tx.insert("results", row) for row in rows])
        damage(tmp_path / "little.db")
        failure = await client.create()
        assert failure is not None
        assert (failure.code.name, failure.reason) == ("DATA_LOSS", "DATABASE_CORRUPT")

        async def down() -> bool:
            return await client.status() == NOT_SERVING

        await until(down, "the damage to be noticed")
        await client.create()
        assert await down()
        assert "little.db" in (await client.details()).database_problem
    critical = [each for each in caplog.records if each.levelno == logging.CRITICAL]
    (said,) = [each for each in critical if each.name == "accord_runtime.admin.health"]
    assert "little.db" in said.getMessage()
    assert "docs/operations.md" in said.getMessage()


@pytest.mark.parametrize("what", ["damaged", "no database", "read-only"])
async def test_a_start_that_cannot_be_is_one_line(small_disk: SmallDisk, what: str) -> None:
    """A file that cannot be used ends the start with exit code 1 and one line that names it."""
    home = small_disk.folder
    async with little(home) as (runtime, _):
        rows = [{"id": str(n), "text": "x" * 3000} for n in range(100)]
        await runtime.database.write(lambda tx: [tx.insert("results", row) for row in rows])
    (home / "little.db").rename(home / "customers.db")
    if what == "damaged":
        damage(home / "customers.db")
    elif what == "no database":
        (home / "customers.db").write_text("It is a text. " * 1000)
    else:
        small_disk.make_read_only()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runtime.little_service"),
        env={**os.environ, "MESH_HOME": str(home), "LOG_FORMAT": "text"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode().splitlines()
    assert process.returncode == 1
    (line,) = said
    assert "customers.db" in line


def add_page(file: Path) -> None:
    """One more page, which the server does not have in memory and which is none."""
    with file.open("ab") as raw:
        raw.write(b"\xa5" * 8192)


async def test_a_damaged_page_of_postgresql_is_damage(postgres_url: str, service: str) -> None:
    """A page that the server finds invalid is the same exception as with SQLite."""
    database = await open_database(postgres_url, service)
    await database.write(lambda tx: tx.execute("CREATE TABLE t (id BIGINT, text TEXT)"))
    await database.write(lambda tx: tx.insert("t", {"id": 1, "text": "x"}))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        found = connection.execute(
            "SELECT current_setting('data_directory') || '/' || pg_relation_filepath(%s)",
            (f"{service}.t",),
        ).fetchone()
    assert found is not None
    add_page(Path(found[0]))
    with pytest.raises(DatabaseCorrupt, match="invalid page"):
        await database.read(lambda tx: tx.all("SELECT * FROM t"))
    await database.close()


async def test_lag_counts_what_is_not_acknowledged(
    record: Database, broker_server: NatsServer
) -> None:
    """Events count from their commit to the broker's acknowledgement, with the oldest's age."""
    assert await record.read(lambda tx: lag(tx, "ORDERS", 100.0)) == Lag()
    for sequence in (1, 2):
        await record.write(
            lambda tx, s=sequence: append(tx, note("a"), sequence=s, now=70.0 + s)  # type: ignore[misc]
        )
    assert await record.read(lambda tx: lag(tx, "ORDERS", 100.0)) == Lag(2, 29.0)
    async with publishing(record, broker_server.url):

        async def none() -> bool:
            return await record.read(lambda tx: lag(tx, "ORDERS", 100.0)) == Lag()

        await until(none, "the events to be acknowledged")


async def test_a_long_wait_is_said_again_and_when_it_is_over(
    record: Database,
    broker_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events that wait are a warning with its reason, repeated, and a line when they are gone."""
    monkeypatch.setattr(health, "LOOK", 0.01)
    monkeypatch.setattr(health, "AGAIN", 0.05)
    caplog.set_level(logging.INFO, logger="accord_runtime.admin.health")

    async def tell(status: int) -> None:
        raise AssertionError("the database commits")

    watch = Health(record, "here", "ORDERS", tell, lambda: "it is asleep")
    task = asyncio.create_task(watch.watch_backlog())
    await record.write(lambda tx: append(tx, note("a"), sequence=1, now=1.0))

    def warnings() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    await until(lambda: len(warnings()) > 1, "the second warning")
    assert warnings()[0].startswith("1 events wait for the broker, the oldest for ")
    assert warnings()[0].endswith(": it is asleep")
    assert watch.broker_problem.endswith(": it is asleep")
    async with publishing(record, broker_server.url):
        await until(lambda: "has taken" in caplog.messages[-1], "the end to be said")
    assert not watch.broker_problem
    task.cancel()
