"""A service from its start to its end: in this process, and as a program of its own."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord import idempotency_key
from accord.errors import ServiceError
from accord.server.registration import LAME_DUCK
from accord_runtime.database import DatabaseLocked
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import running
from accord_runtime.service import Runtime
from shop.customers.v1.customers_pb2 import (
    CreateCustomerRequest,
    GetCustomerRequest,
    ListCustomersRequest,
)
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.runtime.little_service import service as little_service
from tests.runtime.work.support import put, results
from tests.support.mesh import settings_of
from tests.support.ports import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CONTRACT = "shop.customers.v1.CustomerService"


@asynccontextmanager
async def little(
    home: Path, name: str = "little", database_url: str = ""
) -> AsyncIterator[tuple[Runtime, grpc.aio.Channel]]:
    """The service, and a plain channel to it, which outlives it."""
    settings = settings_of(name, home, database_url=database_url)
    async with (
        grpc.aio.insecure_channel(settings.address) as channel,
        running(little_service(name), settings) as runtime,
    ):
        yield runtime, channel


def wanted(email: str = "ada@example.com") -> CreateCustomerRequest:
    return CreateCustomerRequest(name="Ada", email=email)


async def test_a_service_says_that_it_serves_and_that_it_ends(tmp_path: Path) -> None:
    """Health is SERVING as a whole and per contract, and NOT_SERVING as soon as the end begins."""
    async with little(tmp_path) as (_, channel):
        health: Any = health_pb2_grpc.HealthStub(channel)  # The types know of grpc.Channel only.
        for name in ("", CONTRACT):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=CONTRACT), timeout=10)
        assert (await watch.read()).status == SERVING

        async def told() -> int:
            answer = await watch.read()
            watch.cancel()
            return int(answer.status)

        end = asyncio.create_task(told())
    assert await end == NOT_SERVING


async def test_no_call_is_lost_at_the_end(tmp_path: Path) -> None:
    """Calls that run when the end begins or that come while callers move away are answered."""
    calls = []
    settings = settings_of("little", tmp_path)
    async with grpc.aio.insecure_channel(settings.address) as channel:
        stub = CustomerServiceStub(channel)
        ending = asyncio.Event()

        async def call() -> None:
            await stub.GetCustomer(GetCustomerRequest(customer_id=uuid7()), timeout=5)

        async def keep_calling() -> None:
            await ending.wait()
            for _ in range(10):
                calls.append(asyncio.create_task(call()))
                await asyncio.sleep(LAME_DUCK / 15)

        more = asyncio.create_task(keep_calling())
        async with running(little_service("little"), settings):
            calls += [asyncio.create_task(call()) for _ in range(20)]
            await asyncio.sleep(0.1)
            ending.set()
        await more
        await asyncio.gather(*calls)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call()
    assert len(calls) == 30
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_work_that_runs_at_the_end_is_finished(tmp_path: Path) -> None:
    """A row that is at work when the service stops is completed before the database is closed."""
    async with little(tmp_path) as (runtime, _):
        await put(runtime.executor, runtime.database, "k", queue="slow")
        await asyncio.sleep(0.1)
    async with little(tmp_path) as (runtime, _):
        assert await results(runtime.database) == ["k"]


async def test_what_is_started_is_stopped_in_order(tmp_path: Path) -> None:
    """`on_close` runs when no calls are taken any more and the database still works."""
    seen: list[str] = []
    base = little_service("little")

    def build(runtime: Runtime) -> None:
        base.build(runtime)

        async def close() -> None:
            assert await results(runtime.database) == []
            seen.append("closed")

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("ended")

        runtime.closing.append(close)
        runtime.background.append(("forever", forever))

    service = replace(base, build=build)
    async with running(service, settings_of("little", tmp_path)):
        await asyncio.sleep(0)
    assert seen == ["closed", "ended"]


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A service whose port is taken does not start, and says which one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=listen):
            async with running(
                little_service("little"), settings_of("little", tmp_path, listen=listen)
            ):
                raise AssertionError("it serves")
    async with little(tmp_path):
        pass  # What it had opened is closed again, the database among it.


async def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    """Two services on one SQLite file: the second one does not start."""
    async with little(tmp_path):
        with pytest.raises(DatabaseLocked):
            async with little(tmp_path):
                raise AssertionError("it serves")


async def test_a_repeated_call_has_one_effect(
    tmp_path: Path, database_url: str, service: str
) -> None:
    """The same key gets the same answer, refusals included, in this life and in the next."""
    url = database_url if database_url.startswith("postgresql") else ""
    for _ in range(2):
        async with little(tmp_path, service, url) as (runtime, channel):
            stub = CustomerServiceStub(channel)
            for _ in range(2):
                first = await stub.CreateCustomer(
                    wanted(), metadata=idempotency_key("one"), timeout=5
                )
                assert first.customer.name == "Ada"
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await stub.CreateCustomer(wanted(), metadata=idempotency_key("two"), timeout=5)
                assert ServiceError.from_rpc(raised.value).reason == "EMAIL_TAKEN"
            assert await results(runtime.database) == ["ada@example.com"]


async def test_requests_are_checked_before_the_handler(tmp_path: Path) -> None:
    """A request that breaks a rule of its contract is refused with the field's path."""
    async with little(tmp_path) as (runtime, channel):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await CustomerServiceStub(channel).CreateCustomer(
                wanted("nobody"), metadata=idempotency_key("one"), timeout=5
            )
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        [violation] = ServiceError.from_rpc(raised.value).violations
        assert violation.field == "email"
        assert await results(runtime.database) == []


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """The caller is told to try again, and learns nothing of the database."""
    async with little(tmp_path) as (_, channel):
        call = CustomerServiceStub(channel).ListCustomers(ListCustomersRequest(), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        error = ServiceError.from_rpc(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert error.retry_after == 1.0
    assert "secret" not in str(raised.value)


async def test_channelz_is_served(tmp_path: Path) -> None:
    """The server lists itself for those who look into a running process."""
    async with little(tmp_path) as (_, channel):
        plain: Any = channel  # The types know of grpc.Channel only.
        stub = channelz_pb2_grpc.ChannelzStub(plain)
        answer = await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=5)
    assert answer.server


class Program:
    """The little service as a process of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        kept = ("PATH", "HOME", "TMPDIR", "PYTHONPATH")
        self.environment = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "MESH_HOME": str(home),
            "MESH_INSECURE": "1",
            "MESH_LISTEN": f"127.0.0.1:{free_port()}",
            "NATS_URL": f"nats://127.0.0.1:{free_port()}",
            **environment,
        }

    async def run(self, *, stop: bool = False) -> tuple[int, str, str]:
        """Run to the end, after SIGTERM if asked; exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.runtime.little_service",
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        seen = b""
        try:
            async with asyncio.timeout(30):
                while stop and b"serving on" not in seen:
                    line = await process.stdout.readline()
                    assert line, (await process.communicate())[1]
                    seen += line
                if stop:
                    process.send_signal(signal.SIGTERM)
                rest, errors = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, (seen + rest).decode(), errors.decode()


async def test_sigterm_ends_a_program_well(tmp_path: Path) -> None:
    """It drains and exits with 0, and every line of its log is a JSON object."""
    code, output, errors = await Program(tmp_path).run(stop=True)
    lines = [json.loads(line) for line in output.splitlines()]
    assert code == 0, errors
    assert "draining" in [line["msg"] for line in lines]
    assert {line["service"] for line in lines} == {"customers"}
    assert "Traceback" not in errors


async def test_a_failing_background_ends_a_program(tmp_path: Path) -> None:
    """A process that could only half do its work says why and exits with 1."""
    code, output, _ = await Program(tmp_path, LITTLE="fail").run()
    assert code == 1
    failures = [json.loads(line) for line in output.splitlines() if '"critical"' in line]
    assert [line["msg"] for line in failures] == ["something failed"]
    assert "the background is broken" in failures[0]["exception"]


async def test_a_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A port in use and an impossible setting each give one clear line and exit code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, output, errors = await Program(tmp_path, MESH_LISTEN=listen).run()
        assert code == 1
        assert listen in output
        if sys.platform == "linux":
            assert f"held by process {os.getpid()} (" in output
        assert "Traceback" not in output + errors
    code, output, errors = await Program(tmp_path, MESH_PORT_OFFSET="many").run()
    assert code == 1
    assert errors.strip() == "customers: MESH_PORT_OFFSET='many': expected a number of 0 or more"
