"""The edge's process."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import services
from accord_runtime import program
from accord_runtime.settings import Settings, is_loopback
from accord_runtime.telemetry import Telemetry
from services import bearer_tokens, http_server, topology
from services.edge.app import App
from services.edge.settings import EdgeSettings

log = logging.getLogger(__name__)


@asynccontextmanager
async def serving(settings: Settings, recorded: Telemetry) -> AsyncIterator[asyncio.Event]:
    """Serve until the block is left, then drain."""
    own = EdgeSettings.from_environment(os.environ)
    failed = asyncio.Event()
    async with AsyncExitStack() as stack:
        identity = program.open_identity(settings, stack)
        mesh = program.join(settings, identity)
        stack.push_async_callback(mesh.close)
        app = App(
            mesh,
            bearer_tokens.authenticator(settings.home, os.environ),
            own.origins,
            development=own.development,
            console=settings.addresses.gateways[topology.CONSOLE],
        )
        background = program.Tasks(failed)
        stack.push_async_callback(background.stop)
        background.start("policy file", lambda: program.follow_policy_file(mesh, settings))
        await program.serve_metrics(recorded, settings, stack)
        if not is_loopback(settings.address):
            log.warning("bearer tokens come to %s without TLS: end it before", settings.address)
        serves = http_server.serving(
            app, settings.address, failed, proxies=own.proxies, drain=app.drain
        )
        await stack.enter_async_context(serves)
        yield failed


program.run(
    topology.EDGE,
    services.__version__,
    topology.gateway_addresses,
    serving,
    keeps_spans=False,
)
