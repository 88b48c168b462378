"""Context variables that a user's own interceptor sets, and handlers read."""

from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")
METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]
UNARY = ("Unary", "ClientStream")


def _tenant(details: Any) -> str:
    return str(dict(details.invocation_metadata)["tenant"])


class Tenant(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Notes whose call it is."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Called once per call."""
        TENANT.set(_tenant(details))
        return await continuation(details)


class SyncTenant(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """The same for a server with threads."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Called once per call."""
        TENANT.set(_tenant(details))
        return continuation(details)


async def _one(request: Any, context: Any) -> Any:
    return Message(text=TENANT.get())


async def _many(request: Any, context: Any) -> AsyncIterator[Any]:
    yield Message(text=TENANT.get())


def _sync_one(request: Any, context: Any) -> Any:
    return Message(text=TENANT.get())


def _sync_many(request: Any, context: Any) -> Iterator[Any]:
    yield Message(text=TENANT.get())


ASYNC = {name: _one if name in UNARY else _many for name in METHODS}
SYNC = {name: _sync_one if name in UNARY else _sync_many for name in METHODS}


def _argument(method: str) -> Any:
    return iter([Message()]) if method in ("ClientStream", "Bidi") else Message()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("behaviours", [ASYNC, SYNC], ids=["coroutines", "functions"])
async def test_context_variable(driver: Driver, behaviours: Any, method: str) -> None:
    """Each call's handler reads what was set for this call, although threads are used again."""
    interceptors = [Tenant() if driver.aio else SyncTenant()]
    mesh = accord.Mesh("callee")
    async with (
        driver.serving(mesh, behaviours, interceptors=interceptors) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for tenant in ("blue", "green"):
            call = getattr(Stub(channel), method)(_argument(method), metadata=(("tenant", tenant),))
            answers = [await call] if method in UNARY else await collect(call)
            assert [each.text for each in answers] == [tenant]
    assert TENANT.get() == "nobody"
