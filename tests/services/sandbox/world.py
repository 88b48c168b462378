"""The outside world for the tests of those who depend on it: a real sandbox, and commands to it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from accord.errors import ServiceError
from accord.policies.retry import ATTEMPT_KEY
from services.topology import address
from shop.sandbox.v1 import sandbox_pb2 as pb
from shop.sandbox.v1.sandbox_pb2_grpc import (
    CardProcessorServiceStub,
    CarrierServiceStub,
    SandboxServiceStub,
)
from tests.support.shop import Shop, running_shop

DEADLINE = 10.0
"""Seconds within which every call of a test must end."""

SINGLE = ((ATTEMPT_KEY, "1"),)
"""Metadata of a caller that repeats its calls by itself: nobody below it does, so that no attempt
is hidden from a test."""

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class World:
    """A sandbox, seen over a channel without interceptors."""

    channel: grpc.aio.Channel

    @property
    def cards(self) -> CardProcessorServiceStub:
        return CardProcessorServiceStub(self.channel)

    @property
    def carrier(self) -> CarrierServiceStub:
        return CarrierServiceStub(self.channel)

    async def behave(
        self,
        party: pb.Party.ValueType,
        behavior: pb.Behavior.ValueType,
        calls: int = 1,
        delay: float = 0.0,
    ) -> None:
        """Command the next calls of a party."""
        wait = Duration()
        wait.FromMicroseconds(round(delay * 1e6))
        await SandboxServiceStub(self.channel).SetBehavior(
            pb.SetBehaviorRequest(party=party, behavior=behavior, calls=calls, delay=wait),
            timeout=DEADLINE,
        )

    async def ledger(self, reference: str = "", after: int = 0) -> list[pb.ReadLedgerResponse]:
        """The entries of the ledger."""
        request = pb.ReadLedgerRequest(after_number=after, reference=reference)
        call = SandboxServiceStub(self.channel).ReadLedger(request, timeout=DEADLINE)
        return [entry async for entry in call]

    async def kinds(self, reference: str) -> list[pb.EntryKind.ValueType]:
        """What the ledger says of a reference, oldest first."""
        return [entry.kind for entry in await self.ledger(reference)]


@asynccontextmanager
async def world_at(offset: int) -> AsyncIterator[World]:
    """The sandbox that listens, or will listen, at a port offset."""
    async with grpc.aio.insecure_channel(address("sandbox", offset)) as channel:
        yield World(channel)


@asynccontextmanager
async def running_world(
    home: Path, *others: str, database_url: str = "", offset: int | None = None
) -> AsyncIterator[tuple[Shop, World]]:
    """A sandbox and perhaps other services, all in this process."""
    async with (
        running_shop(home, "sandbox", *others, database_url=database_url, offset=offset) as shop,
        world_at(shop.offset) as world,
    ):
        yield shop, world


@asynccontextmanager
async def running_process(
    name: str, home: Path, offset: int, *, database_url: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A service in a process of its own, which is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{name}"),
        env={
            **os.environ,
            "MESH_HOME": str(home),
            "MESH_PORT_OFFSET": str(offset),
            "DATABASE_URL": database_url,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with grpc.aio.insecure_channel(address(name, offset)) as channel:
            await eventually(partial(_is_healthy, channel))
            yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _is_healthy(channel: grpc.aio.Channel) -> bool:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    try:
        answer = await check(HealthCheckRequest(), timeout=DEADLINE)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def failure(raised: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a failed call."""
    error = ServiceError.from_rpc(raised.value)
    return error.code, error.reason


def refused(reason: str) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a business refusal."""
    return grpc.StatusCode.FAILED_PRECONDITION, reason


async def eventually(condition: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Wait until a condition holds, asking again and again."""
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110 (what is waited for is in another process)
            await asyncio.sleep(0.05)
