"""One service process: what is started, in which order, and how it ends."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

import accord
from accord.admin.mesh_service import CONTRACT, serve
from accord.contract.live_overrides import FileSource, Layer
from accord.identity import Identity, IdentityError
from accord.ops.v1.operation_pb2_grpc import add_OperationServiceServicer_to_server
from accord.xds import RouteError, XdsError, remove_socket
from accord_runtime import admin, jobs, state_folder, telemetry
from accord_runtime.admin import health
from accord_runtime.admin.policy_store import BrokerPolicyStore
from accord_runtime.database import (
    Database,
    DatabaseCorrupt,
    DatabaseError,
    DatabaseUnavailable,
    open_database,
)
from accord_runtime.database.migrations import migrate
from accord_runtime.events import command_sender, inbox, outbox, position, publisher
from accord_runtime.events.broker import Broker
from accord_runtime.events.notifier import Notifier
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.publisher import Publisher
from accord_runtime.events.versions import TooNew
from accord_runtime.grpc import idempotency, reflection, validation
from accord_runtime.grpc.idempotency import SqlIdempotencyStore
from accord_runtime.jobs.servicer import OperationServicer
from accord_runtime.ports import holder
from accord_runtime.saga import orchestrator
from accord_runtime.service import Background, Runtime, Service
from accord_runtime.settings import Addresses, Settings
from accord_runtime.telemetry import Telemetry, logs, span_store
from accord_runtime.telemetry.metrics_endpoint import ScrapeServer
from accord_runtime.work import ownership, table
from accord_runtime.work.backlog import Backlog
from accord_runtime.work.executor import Executor

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    *idempotency.MIGRATIONS,
    *outbox.MIGRATIONS,
    *publisher.MIGRATIONS,
    *table.MIGRATIONS,
    *inbox.MIGRATIONS,
    *admin.MIGRATIONS,
    *ownership.MIGRATIONS,
    *table.FLOW_MIGRATIONS,
    *health.MIGRATIONS,
    *position.MIGRATIONS,
    *publisher.LATER_MIGRATIONS,
    *jobs.MIGRATIONS,
    *ownership.LATER_MIGRATIONS,
    *position.LATER_MIGRATIONS,
    *command_sender.MIGRATIONS,
    *span_store.MIGRATIONS,
    *outbox.LATER_MIGRATIONS,
]

GRACE: Final = 5.0
"""Seconds that running calls are given to end."""

CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    # Connections, and the wait for the next attempt at one, are not shared with what else is in
    # the process: several services may be, and others at the same addresses before them.
    ("grpc.use_local_subchannel_pool", 1),
    # A connection in use looks after its backends each second, which is most of what an idle
    # process would do. To connect again takes 2 ms.
    ("grpc.client_idle_timeout_ms", 10_000),
)
"""Of the channels to the other services."""

PROBES: Final = 100
"""Calls at once on the port for health, which everybody may call who reaches it."""

_ALONE: Final = (("grpc.so_reuseport", 0),)
"""Two processes on one port would share its calls in silence."""

PATIENCE: Final = 3.0
"""Seconds that background work is given to end. With `GRACE`, `accord`'s lame duck and what is left
to export (`telemetry.setup.CLOSING`) below the 10 s after which a supervisor kills a process."""


@asynccontextmanager
async def running(
    service: Service, settings: Settings, recorded: Telemetry | None = None
) -> AsyncIterator[Runtime]:
    """Serve until the block is left, then drain. `recorded`: by the process.

    Raises:
        ContractError: a policy in the contract is invalid.
        DatabaseError: the database cannot be reached, is another process's, or is damaged.
        IdentityError: its certificate is none that anybody would accept.
        OSError: the port is in use.
    """
    for contract in (
        *service.contracts,
        *admin.CONTRACTS,
        admin.SAGA_CONTRACT,
        jobs.CONTRACT,
        CONTRACT,
    ):
        accord.check_service(contract)
    async with contextlib.AsyncExitStack() as stack:
        identity = None
        if settings.identity:
            identity = Identity.from_folder(settings.identity, revoked=settings.revoked)
            stack.callback(identity.close)
        database = await open_database(settings.database, service.name)
        stack.push_async_callback(database.close)
        await migrate(database, "runtime", MIGRATIONS)
        await migrate(database, service.name, service.migrations)
        recorded = recorded or Telemetry()
        stack.push_async_callback(recorded.spans.close, database)

        broker = Broker(settings)
        stack.push_async_callback(broker.close)
        notifier = Notifier()
        publishing = Publisher(service.name, database, broker, notifier)
        # The address is this process's own as long as it lives, and the next one's after it;
        # replicas on other machines may well listen on the same one.
        executor = Executor(database, owner=f"{socket.gethostname()}/{settings.address}")
        mesh = accord.Mesh(
            service.name,
            targets=settings.peers,
            channel_options=CHANNEL_OPTIONS,
            health_checks=dict.fromkeys(settings.peers, admin.TAKES_CALLS),
            validator=validation.violations,
            idempotency=SqlIdempotencyStore(database),
            translate=_translate,
            identity=identity,
            routes=settings.routes or None,
            control_plane=settings.control_plane or None,
            authorize=identity is not None,
        )
        stack.push_async_callback(mesh.close)
        runtime = Runtime(
            settings=settings,
            mesh=mesh,
            database=database,
            server=(server := mesh.server(options=_ALONE)),
            executor=executor,
            outbox=Outbox(publishing.wake, notifier.changed, service=service.name),
            notifier=notifier,
            broker=broker,
            jobs=jobs.Jobs(database, executor, notifier),
            backlog=Backlog(settings.max_backlog),
            telemetry=recorded,
        )
        service.build(runtime)
        operations = OperationServicer(database, notifier, runtime.jobs)
        add_OperationServiceServicer_to_server(operations, server)
        live_policy = BrokerPolicyStore(broker)

        async def tell(status: int) -> None:
            for contract in ("", *service.contracts):
                await server.set_health(contract, status)

        where = f"schema {service.name}" if settings.database_url else settings.database
        stream = service.name.upper()
        watch = health.Health(
            *(database, where, stream, tell, lambda: broker.problem, runtime.backlog),
            refusal=lambda: broker.refusal,
            identity=identity,
        )
        contracts = (
            *service.contracts,
            jobs.CONTRACT,
            *admin.serve(runtime, watch),
            serve(
                mesh,
                runtime.server,
                store=live_policy,
                audit=lambda done: database.write(lambda tx: admin.record(tx, done)),
                events=lambda: admin.event_edges(runtime, watch, publishing),
            ),
        )
        _introspection(runtime.server, contracts)
        validation.warm(contracts)
        credentials = None if identity is None else identity.server_credentials()
        _listen(server, settings.address, credentials)
        # One that is never started corrupts memory when it is collected: gRPC's own.
        probed = None
        if settings.health_address:
            probed = mesh.server(options=_ALONE, maximum_concurrent_rpcs=PROBES)
            add_HealthServicer_to_server(server.health, probed)
            _listen(probed, settings.health_address)

        background = _Tasks(runtime.failed)
        stack.push_async_callback(background.stop)
        stack.push_async_callback(runtime.executor.drain, PATIENCE)
        for work in runtime.closing:
            stack.push_async_callback(work)
        await runtime.executor.take_back()
        background.start("executor", runtime.executor.serve)
        background.start("relay", publishing.serve)
        background.start("backlog", watch.watch_backlog)
        background.start("hub", lambda: notifier.serve(database))
        # It may come, change and go at any time.
        policy_file = FileSource(settings.home / "policy.json")
        overrides = mesh.control.overrides
        background.start("live policy", lambda: overrides.follow(live_policy))
        background.start("policy file", lambda: overrides.follow(policy_file, Layer.FILE))
        background.start("sweeper", lambda: _sweep(database, sagas=runtime.sagas is not None))
        background.start("spans", lambda: runtime.telemetry.spans.serve(database))
        background.start("operations", runtime.jobs.serve)
        for name, work in runtime.background:
            background.start(name, work)
        if runtime.telemetry.scrape is not None:
            await _serve_metrics(runtime.telemetry.scrape, settings, stack)
        await runtime.server.start()
        background.start("database", watch.watch_database)
        if probed is not None:
            await probed.start()
            stack.push_async_callback(probed.stop)
        stack.push_async_callback(runtime.server.stop, GRACE)
        yield runtime


def _translate(error: Exception) -> accord.ServiceError | None:
    """A database that is away is the caller's to try again; what is damaged, or too new, is not."""
    if isinstance(error, DatabaseUnavailable):
        return accord.Unavailable("DATABASE_UNAVAILABLE", 1.0, "the record cannot be reached")
    if isinstance(error, DatabaseCorrupt):
        text = "the record is damaged: its operator must repair it"
        return accord.ServiceError(grpc.StatusCode.DATA_LOSS, "DATABASE_CORRUPT", text)
    if isinstance(error, TooNew):
        return accord.FailedPrecondition("EVENT_TOO_NEW", str(error))
    return None


def _listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> None:
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        port = address.rpartition(":")[2]
        by = port.isdecimal() and holder(int(port))
        why = f", which is held by {by}" if by else "; is it in use?"
        raise OSError(f"cannot listen on {address}{why}") from error


def _introspection(server: grpc.aio.Server, contracts: Sequence[str]) -> None:
    channelz_server: Any = server  # The types know of grpc.Server only.
    channelz.add_channelz_servicer(channelz_server)
    reflection.enable(server, [*contracts, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"])


async def _serve_metrics(
    scrape: Callable[[], bytes], settings: Settings, stack: contextlib.AsyncExitStack
) -> None:
    """A port that is taken costs the metrics, not the service."""
    server = ScrapeServer(scrape)
    try:
        await server.start("127.0.0.1", settings.metrics_port)
    except (OSError, OverflowError) as error:
        by = holder(settings.metrics_port) or error
        log.warning("no metrics are served on port %d: %s", settings.metrics_port, by)
        return
    stack.push_async_callback(server.close)


async def _sweep(database: Database, *, sagas: bool) -> None:
    while True:
        try:
            await database.write(lambda tx: idempotency.sweep(tx, time.time()))
            removed = int(sagas)
            while removed:
                removed = await database.write(lambda tx: orchestrator.sweep(tx, time.time()))
        except DatabaseError as error:
            log.warning("old answers and sagas could not be removed: %s", error)
        await asyncio.sleep(3600)


class _Tasks:
    """Tasks that live as long as the service; one that fails ends the process."""

    def __init__(self, failed: asyncio.Event) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Background) -> None:
        task = asyncio.create_task(work(), name=name)
        task.add_done_callback(self._done)
        self._tasks.append(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("%s failed", task.get_name(), exc_info=error)
            self._failed.set()

    async def stop(self) -> None:
        running = {task for task in self._tasks if not task.done()}
        while running:
            for task in running:
                task.cancel()
            # Again and again: a cancellation that meets an error is lost (asyncio.wait_for).
            _, running = await asyncio.wait(running, timeout=1)


async def _main(service: Service, settings: Settings, recorded: Telemetry) -> bool:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(service, settings, recorded) as runtime:
        log.info("serving on %s", settings.address)
        if settings.identity is None:
            log.warning("WITHOUT TLS: whoever is on this host may call everything")
        waits = [asyncio.create_task(event.wait()) for event in (stop, runtime.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        log.info("draining")
    return not runtime.failed.is_set()


_REFUSED: Final = (
    DatabaseError,
    IdentityError,
    RouteError,
    XdsError,
    accord.ContractError,
    OSError,
)
"""What keeps a service from starting, and says so in one line."""


def main(service: Service, addresses: Callable[[int], Addresses]) -> None:
    """Run a service as its environment says, until SIGTERM or SIGINT; exits 0 after draining.

    `addresses`: port offset -> where the mesh listens; see `Settings.from_environment`.
    """
    try:
        settings = Settings.from_environment(service.name, addresses)
    except ValueError as error:
        sys.exit(f"{service.name}: {error}")
    logs.configure(service.name, settings.log_format)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    package = sys.modules[service.build.__module__.partition(".")[0]]
    version = str(getattr(package, "__version__", ""))
    recorded = telemetry.configure(service.name, version, os.environ)
    try:
        if settings.home.exists() or not settings.database_url:
            state_folder.prepare(settings.home)
        code = 0 if asyncio.Runner().run(_main(service, settings, recorded)) else 1
    except _REFUSED as error:
        log.critical("%s", error)
        code = 1
    finally:
        recorded.close()
    remove_socket()
    logging.shutdown()
    # All is closed. The ends of the event loop and of the interpreter, beside threads of gRPC that
    # nobody can join, crash once in some thousand times.
    os._exit(code)
