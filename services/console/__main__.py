"""The console's process."""

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
from services.console.access import Links
from services.console.app import App
from services.console.services import Services
from services.console.settings import ConsoleSettings

log = logging.getLogger(__name__)


@asynccontextmanager
async def serving(settings: Settings, recorded: Telemetry) -> AsyncIterator[asyncio.Event]:
    """Serve until the block is left, then drain."""
    own = ConsoleSettings.from_environment(os.environ)
    failed = asyncio.Event()
    async with AsyncExitStack() as stack:
        identity = program.open_identity(settings, stack)
        mesh = program.join(settings, identity)
        stack.push_async_callback(mesh.close)
        tokens = bearer_tokens.authenticator(settings.home, os.environ)
        links = Links(settings.home) if is_loopback(settings.address) else None
        app = App(Services(mesh, topology.SERVICES, identity), tokens, links, own.hosts)
        await program.serve_metrics(recorded, settings, stack)
        if links is None:
            log.warning("sessions come to %s without TLS: end it before", settings.address)
        serves = http_server.serving(app, settings.address, failed, drain=app.drain)
        await stack.enter_async_context(serves)
        yield failed


if __name__ == "__main__":
    program.run(
        topology.CONSOLE,
        services.__version__,
        topology.gateway_addresses,
        serving,
        keeps_spans=False,
    )
