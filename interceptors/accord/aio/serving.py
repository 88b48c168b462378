"""A server that checks its contracts, tells its health and drains before it stops."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from accord.aio.server import Wrapper
from accord.contract import check_service

LAME_DUCK: Final = 0.3
"""Seconds between "not serving" and the stop, in which callers move away."""

_HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING


class Server(grpc.aio.Server):
    """gRPC's server with health and drain.

    It serves `grpc.health.v1.Health`, unless a servicer of that name is added: every service that
    it has, and "" for the process, is SERVING between `start` and `stop`.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        *,
        wrapper: Wrapper | None = None,
        lame_duck: float = LAME_DUCK,
    ) -> None:
        """`wrapper`: takes the place of the interceptor that `server` has not got."""
        self._server: Any = server
        self._wrapper = wrapper
        if wrapper is not None:
            wrapper.peers.secure = False
        self._lame_duck = lame_duck
        self._services: dict[str, None] = {}
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._stopping = False

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """As gRPC's own."""
        handlers = tuple(generic_rpc_handlers)
        for handler in handlers:
            name = handler.service_name() if hasattr(handler, "service_name") else None
            if name:
                self._services[name] = None
        if self._wrapper is not None:
            handlers = tuple(_Wrapped(handler, self._wrapper) for handler in handlers)
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """As gRPC's own."""
        self._services[service_name] = None
        if self._wrapper is not None:
            method_handlers = {
                name: self._wrapper.wrap(f"/{service_name}/{name}", handler)
                for name, handler in method_handlers.items()
            }
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """As gRPC's own."""
        return int(self._server.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """As gRPC's own."""
        if self._wrapper is not None:
            self._wrapper.peers.secure = True
        return int(self._server.add_secure_port(address, server_credentials))

    async def start(self) -> None:
        """Serve, and say so. Raises ContractError: a served method has an invalid policy."""
        for name in self._services:
            if _known(name):
                check_service(name)
        if _HEALTH not in self._services:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self)
        for name in ("", *self._services):
            await self._health.set(name, _SERVING)
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        """Say "not serving", let callers move away, then stop; None stops at once.

        A call that is queued when gRPC stops is lost (grpc/grpc#41785), so the callers, who watch
        the health of their servers, are given `lame_duck` seconds to go elsewhere. Calls that run
        get `grace` seconds after that.
        """
        if grace is not None and not self._stopping:
            self._stopping = True
            await self._health.enter_graceful_shutdown()
            await asyncio.sleep(self._lame_duck)
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """As gRPC's own."""
        return bool(await self._server.wait_for_termination(timeout))


class _Wrapped(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """A generic handler whose methods are in their pipelines.

    Cheaper than an interceptor, which gRPC calls, for each RPC.
    """

    def __init__(self, handler: Any, wrapper: Wrapper) -> None:
        self._handler = handler
        self._wrapper = wrapper

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, or None."""
        found = self._handler.service(handler_call_details)
        return found and self._wrapper.wrap(handler_call_details.method, found)


def _known(service: str) -> bool:
    try:
        descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return False
    return True
