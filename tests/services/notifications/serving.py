"""Starts a real service inside the test's own process, and calls it over a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

import accord
from accord_runtime.process import running
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Settings
from services import topology
from tests.support.ports import free_port


@asynccontextmanager
async def serving(
    service: Service,
    home: Path,
    *,
    listen: str = "",
    nats_url: str = "",
    smtp: str = "",
    targets: str = "",
    **others: Any,
) -> AsyncIterator[Runtime]:
    """By default on a free port, with a database in `home` and without a broker."""
    settings = Settings(
        service.name,
        topology.addresses(),
        home=home,
        listen=listen or f"127.0.0.1:{free_port()}",
        nats_url=nats_url or f"nats://127.0.0.1:{free_port()}",
        smtp=smtp,
        targets=targets,
        **others,
    )
    async with running(service, settings) as runtime:
        yield runtime


@asynccontextmanager
async def channel_to(runtime: Runtime) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of another process of the mesh."""
    mesh = accord.Mesh("test", targets={"peer": runtime.settings.address})
    try:
        yield mesh.channel("peer")
    finally:
        await mesh.close()
