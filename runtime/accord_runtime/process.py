"""One service process: what is started, in which order, and how it ends."""

import asyncio
import contextlib
import logging
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
from accord.ops.v1.operation_pb2_grpc import add_OperationServiceServicer_to_server
from accord_runtime import admin, jobs, program, state_folder
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
from accord_runtime.grpc.probes import PROBES, Probes
from accord_runtime.jobs.servicer import OperationServicer
from accord_runtime.program import Tasks
from accord_runtime.saga import orchestrator
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Addresses, Settings
from accord_runtime.telemetry import Telemetry, span_store
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
    *position.LATEST_MIGRATIONS,
]

GRACE: Final = 5.0
"""Seconds that running calls are given to end."""

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
        identity = program.open_identity(settings, stack)
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
        mesh = program.join(
            settings,
            identity,
            validator=validation.violations,
            idempotency=SqlIdempotencyStore(database),
            translate=_translate,
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
            routes=mesh.route_problems,
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
            probed = mesh.server(options=_ALONE, maximum_concurrent_rpcs=2 * PROBES)
            add_HealthServicer_to_server(Probes(server.health), probed)
            _listen(probed, settings.health_address)

        background = Tasks(runtime.failed)
        stack.push_async_callback(background.stop)
        stack.push_async_callback(runtime.executor.drain, PATIENCE)
        for work in runtime.closing:
            stack.push_async_callback(work)
        await runtime.executor.take_back()
        background.start("executor", runtime.executor.serve)
        background.start("relay", publishing.serve)
        background.start("backlog", watch.watch_backlog)
        background.start("hub", lambda: notifier.serve(database))
        background.start("live policy", lambda: mesh.control.overrides.follow(live_policy))
        background.start("policy file", lambda: program.follow_policy_file(mesh, settings))
        background.start("sweeper", lambda: _sweep(database, sagas=runtime.sagas is not None))
        background.start("spans", lambda: runtime.telemetry.spans.serve(database))
        background.start("operations", runtime.jobs.serve)
        for name, work in runtime.background:
            background.start(name, work)
        await program.serve_metrics(runtime.telemetry, settings, stack)
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
        raise program.in_use(address) from error


def _introspection(server: grpc.aio.Server, contracts: Sequence[str]) -> None:
    channelz_server: Any = server  # The types know of grpc.Server only.
    channelz.add_channelz_servicer(channelz_server)
    reflection.enable(server, [*contracts, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"])


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


def main(service: Service, addresses: Callable[[int], Addresses]) -> None:
    """Run a service as its environment says, until SIGTERM or SIGINT; exits 0 after draining.

    `addresses`: port offset -> where the mesh listens; see `Settings.from_environment`.
    """

    @asynccontextmanager
    async def serving(settings: Settings, recorded: Telemetry) -> AsyncIterator[asyncio.Event]:
        if settings.home.exists() or not settings.database_url:
            state_folder.prepare(settings.home)
        async with running(service, settings, recorded) as runtime:
            yield runtime.failed

    package = sys.modules[service.build.__module__.partition(".")[0]]
    version = str(getattr(package, "__version__", ""))
    program.run(service.name, version, addresses, serving, refused=(DatabaseError,))
