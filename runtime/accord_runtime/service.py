"""What a service consists of: what it says of itself, and what it is built from."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

import accord
from accord.ops.v1.work_pb2 import QueueStatus
from accord_runtime.database import Database, Tx
from accord_runtime.events.audit import Record
from accord_runtime.events.broker import Broker
from accord_runtime.events.command_receiver import CommandHandler, CommandReceiver
from accord_runtime.events.command_sender import CommandSender
from accord_runtime.events.inbox import EventHandler, Inbox
from accord_runtime.events.notifier import Notifier
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.versions import AS_WRITTEN, Upcasters
from accord_runtime.events.work_queue import WorkQueue
from accord_runtime.jobs import Jobs
from accord_runtime.program import Background
from accord_runtime.saga import Sagas
from accord_runtime.settings import Settings
from accord_runtime.telemetry import Telemetry
from accord_runtime.work.backlog import Backlog
from accord_runtime.work.executor import Executor

Outgoing = Callable[[Tx], QueueStatus]
"""Reads what waits to go out."""


@dataclass(slots=True)
class Runtime:
    """What a service is built from."""

    settings: Settings
    mesh: accord.Mesh
    database: Database
    server: grpc.aio.Server
    executor: Executor
    outbox: Outbox
    notifier: Notifier
    broker: Broker
    jobs: Jobs
    """Takes the kinds of jobs that the service has; `build` registers them."""
    backlog: Backlog = field(default_factory=Backlog)
    """Whether there is too much work to take more."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    sagas: Sagas | None = None
    """What its operator sees of sagas; set by the `build` of a service that has any."""
    inboxes: list[Inbox] = field(default_factory=list)
    """Whose events it receives."""
    outgoing: list[Outgoing] = field(default_factory=list)
    """What waits to go out beside events, for its operator."""
    background: list[tuple[str, Background]] = field(default_factory=list)
    """What runs as long as the service lives, by name; the process ends when one of it fails."""
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What is done when the service has stopped taking calls."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something in the background has failed: the process must end."""

    def subscribe(
        self,
        stream: str,
        handlers: Mapping[type[Message], EventHandler],
        record: Record | None = None,
        upcasters: Upcasters = AS_WRITTEN,
        wanted: Callable[[Any], bool] | None = None,
        at_once: bool = False,
    ) -> None:
        """Receive another service's events; `stream` is its name in capitals.

        `record` reads that service's own record, for what the broker has lost or does not keep any
        more. Events of the last 30 days are handled when there is no position yet, and those of a
        type when it gets a handler. `upcasters` say how older versions of the events are read;
        `wanted` is asked of each event before it is taken. `at_once`: the handlers ask nobody but
        this database, so that where one process alone has it what they want to be written commits
        together with the events' receipt, and is work only if that fails.
        """
        inbox = Inbox(
            self.settings.name,
            stream.lower(),
            handlers,
            database=self.database,
            broker=self.broker,
            executor=self.executor,
            record=record,
            upcasters=upcasters,
            wanted=wanted,
            at_once=at_once,
        )
        self.inboxes.append(inbox)
        self.background.append((f"consumer of {stream}", inbox.serve))

    def sender(self, queue: WorkQueue) -> CommandSender:
        """Send commands to a work queue."""
        sender = CommandSender(
            queue, database=self.database, broker=self.broker, executor=self.executor
        )
        self.background.append((f"sender to the queue {queue.name}", sender.serve))
        self.outgoing.append(sender.status)
        return sender

    def receive(self, queue: WorkQueue, handler: CommandHandler) -> None:
        """Carry out commands of a work queue, unless there is too much work as it is."""
        receiver = CommandReceiver(
            queue,
            handler,
            database=self.database,
            broker=self.broker,
            executor=self.executor,
            ready=lambda: not self.backlog.full,
        )
        self.background.append((f"receiver of the queue {queue.name}", receiver.serve))


@dataclass(frozen=True, slots=True)
class Service:
    """What is particular to a service."""

    name: str
    """Its name in the mesh: a name of `Addresses.services`."""
    contracts: Sequence[str]
    """Full names of the gRPC services that it serves."""
    build: Callable[[Runtime], None]
    """Adds the servicers, and registers what runs in the background."""
    migrations: Sequence[str] = ()
    """Its tables; see `migrations.migrate`."""
