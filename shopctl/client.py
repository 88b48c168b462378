"""How commands reach the services."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

import accord
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.trace_pb2_grpc import TraceServiceStub
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from services import topology
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shopctl import failures, runfile
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode

RESTART_SECONDS: Final = 2.0
"""How long a service may refuse connections: it may be about to restart."""

BUSY_SECONDS: Final = 10.0
"""How long a service that is there may take to say that it serves."""


class Shop:
    """The services, as seen by one command. Channels are opened when they are first used.

    Args:
        mesh: enforces the contract on every call.
        targets: service name -> address, for messages.
    """

    def __init__(self, mesh: accord.Mesh, targets: dict[str, str]) -> None:
        self._mesh = mesh
        self._targets = targets

    @property
    def customers(self) -> CustomerServiceStub:
        """Client of the customers service."""
        return CustomerServiceStub(self._mesh.channel("customers"))

    @property
    def inventory(self) -> InventoryServiceStub:
        """Client of the inventory service."""
        return InventoryServiceStub(self._mesh.channel("inventory"))

    @property
    def orders(self) -> OrderServiceStub:
        """Client of the orders service."""
        return OrderServiceStub(self._mesh.channel("orders"))

    def work(self, service: str) -> WorkServiceStub:
        """Client for the background work of a service."""
        return WorkServiceStub(self._mesh.channel(service))

    def sagas(self, service: str) -> SagaServiceStub:
        """Client for the sagas of a service that has any."""
        return SagaServiceStub(self._mesh.channel(service))

    def audit(self, service: str) -> AuditServiceStub:
        """Client for the record of interventions in a service."""
        return AuditServiceStub(self._mesh.channel(service))

    def traces(self, service: str) -> TraceServiceStub:
        """Client for the last spans of a service."""
        return TraceServiceStub(self._mesh.channel(service))

    def mesh(self, service: str) -> MeshServiceStub:
        """Client for the policies of a service."""
        return MeshServiceStub(self._mesh.channel(service))

    @asynccontextmanager
    async def calling(self, service: str, key: str = "") -> AsyncIterator[None]:
        """Connects, and turns a call that fails into a `CommandError`.

        Waiting for the connection first tells a service that is not there, which has done
        nothing, from a call whose answer was lost. `key` as in `failures.explain`.
        """
        address = self._targets[service]
        if not await serves(self._mesh.channel(service)):
            raise CommandError(
                f"{service} does not serve at {address}; is the shop up? See: shopctl status",
                ExitCode.NOT_RUNNING,
            )
        try:
            yield
        except grpc.RpcError as error:
            raise failures.explain(error, service, address, key) from None


async def serves(channel: grpc.aio.Channel) -> bool:
    """Whether the channel leads to a service that serves; may take `BUSY_SECONDS`."""
    for seconds in (RESTART_SECONDS, BUSY_SECONDS - RESTART_SECONDS):
        try:
            async with asyncio.timeout(seconds):
                await channel.channel_ready()
        except TimeoutError:
            if channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return False
        else:
            return True
    return False


def run(home: Path, offset: int | None, command: Callable[[Shop], Awaitable[None]]) -> None:
    """Runs a command against the shop in `home`, or at `offset` if that is given."""
    targets = _targets(home, offset)

    async def connected() -> None:
        mesh = accord.Mesh("shopctl", targets=targets)
        try:
            await command(Shop(mesh, targets))
        finally:
            await mesh.close()

    asyncio.run(connected())


def _targets(home: Path, offset: int | None) -> dict[str, str]:
    elsewhere = os.environ.get("MESH_TARGETS", "")
    if offset is None:
        started = runfile.read(home)
        if started is None and not elsewhere:
            # Whoever listens on the usual ports may be another shop.
            raise CommandError(
                f"nothing runs in {home}; start the shop with: make up,"
                " or name another: --home or --port-offset",
                ExitCode.NOT_RUNNING,
            )
        offset = started.offset if started else 0
    try:
        return topology.targets(offset, elsewhere)
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
