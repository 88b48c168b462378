"""The shop as its customers and operators reach it: the public RPCs, through generated clients.

What a contract says of retries ends within the deadline of one call. `Retries` goes on beyond it,
for processes that are killed and come back.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import grpc

import accord
from accord.errors import ServiceError
from accord.policies.retry import Retry, RetryPolicy, Stop
from accord.policies.types import Code
from accord_runtime.grpc.operator_contracts import TAKES_CALLS
from services import topology
from shop.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shopctl.errors import CommandError, ExitCode
from shopctl.identity import identity_of
from shopctl.replay.progress import Tally

T = TypeVar("T")

RETRY: Final = RetryPolicy(
    max_attempts=sys.maxsize,
    initial_backoff=0.1,
    max_backoff=2.0,
    codes=frozenset(
        {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.RESOURCE_EXHAUSTED}
    ),
)
"""Until a call is answered, whatever the code that says nothing about the request itself."""


class RefusedError(CommandError):
    """A call was answered with an error that repeating it will not change."""

    def __init__(self, method: str, failure: ServiceError) -> None:
        super().__init__(
            f"{method}: {failure.code.name} ({failure.reason}): {failure.message}",
            ExitCode.REFUSED,
        )
        self.failure = failure


class Retries:
    """Rides out services that are down, slow or busy; whoever calls bounds the time.

    Only calls that may be repeated may be made with it: reads, and writes with an idempotency key.

    Args:
        tally: gets to know of every repetition.
        policy: when a call is made again.
        random: uniform over [0, 1).
    """

    def __init__(
        self,
        tally: Tally,
        policy: RetryPolicy = RETRY,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._tally = tally
        self._policy = policy
        self._random = random

    async def call(self, method: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call.

        Args:
            method: its name, for error messages.
            attempt: makes the call, the same one each time.

        Raises:
            RefusedError: it failed with a code that the policy does not have.
        """
        retry = Retry(self._policy, repeatable=True, budget=None, random=self._random)
        while True:
            try:
                return await attempt()
            except grpc.RpcError as error:
                failure = ServiceError.from_rpc(error)
            # A circuit breaker may name half a minute. Asking it again costs no one anything, and
            # the service behind it may be back much sooner.
            told = min(failure.retry_after or 0.0, self._policy.max_backoff)
            delay = retry.failed(Code[failure.code.name], remaining=None, retry_info=told or None)
            if isinstance(delay, Stop):
                raise RefusedError(method, failure)
            self._tally.retried(failure.code.name)
            await asyncio.sleep(delay)


class Clients:
    """One client per service, and what all calls have in common.

    Attributes:
        retries: makes calls until they are answered.
        tally: gets to know how far it is.

    Args:
        mesh: enforces the contract on every call.
        concurrency: calls at a time.
    """

    def __init__(self, mesh: accord.Mesh, tally: Tally, concurrency: int) -> None:
        self.accounting = AccountingServiceStub(mesh.channel("accounting"))
        self.customers = CustomerServiceStub(mesh.channel("customers"))
        self.inventory = InventoryServiceStub(mesh.channel("inventory"))
        self.orders = OrderServiceStub(mesh.channel("orders"))
        self.payments = PaymentServiceStub(mesh.channel("payments"))
        self.shipping = ShippingServiceStub(mesh.channel("shipping"))
        self.notifications = NotificationServiceStub(mesh.channel("notifications"))
        self.sandbox = SandboxServiceStub(mesh.channel("sandbox"))
        self.retries = Retries(tally)
        self.tally = tally
        self._concurrency = concurrency

    async def for_each(self, items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
        """Does `work` on every item, as many at a time as there may be calls."""
        await for_each(items, self._concurrency, work)


@asynccontextmanager
async def connect(
    offset: int, home: Path, tally: Tally, concurrency: int
) -> AsyncIterator[Clients]:
    """Clients of the shop with this port offset and folder; policies come from its contracts."""
    targets = topology.targets(offset, os.environ.get("MESH_TARGETS", ""))
    mesh = accord.Mesh(
        "shopctl",
        targets=targets,
        health_checks=dict.fromkeys(targets, TAKES_CALLS),
        identity=identity_of(home),
        on_resume=lambda _method, _attempt, error: tally.retried(error.code().name),
    )
    try:
        yield Clients(mesh, tally, concurrency)
    finally:
        await mesh.close()


async def for_each(items: Iterable[T], limit: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Does `work` on every item, at most `limit` at a time, begun in their order.

    Raises:
        Exception: the first one that `work` raised; the rest is cancelled.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
