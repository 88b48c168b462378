"""A server with threads that checks its contracts, tells its health and drains before it stops."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from accord.contract import check_service
from accord.sync.server import Wrapper

LAME_DUCK: Final = 0.3
"""Seconds between "not serving" and the stop, in which callers move away."""

_HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING


class Server(grpc.Server):
    """gRPC's server with health and drain: the twin of `accord.aio.serving.Server`.

    It serves `grpc.health.v1.Health`, unless a servicer of that name is added: every service that
    it has, and "" for the process, is SERVING between `start` and `stop`.
    """

    def __init__(
        self,
        server: grpc.Server,
        pool: ThreadPoolExecutor,
        *,
        wrapper: Wrapper | None = None,
        lame_duck: float = LAME_DUCK,
    ) -> None:
        """`pool` is shut down with it; `wrapper` takes the place of an interceptor."""
        self._server: Any = server
        self._wrapper = wrapper
        self._pool = pool
        if wrapper is not None:
            wrapper.peers.secure = False
        self._lame_duck = lame_duck
        self._services: dict[str, None] = {}
        self._health: Any = health.HealthServicer()
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

    def start(self) -> None:
        """Serve, and say so. Raises ContractError: a served method has an invalid policy."""
        for name in self._services:
            if _known(name):
                check_service(name)
        if _HEALTH not in self._services:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self)
        for name in ("", *self._services):
            self._health.set(name, _SERVING)
        self._server.start()

    def stop(self, grace: float | None = None) -> Event:
        """Say "not serving", let callers move away, then stop; None stops at once.

        Returns at once; the event is set when all is over. As in `accord.aio.serving.Server.stop`,
        the callers have `lame_duck` seconds to go elsewhere, and calls that run get `grace` seconds
        after that.
        """
        over = Event()
        lame_duck = grace is not None and not self._stopping
        self._stopping = True
        if lame_duck:
            self._health.enter_graceful_shutdown()
        else:
            # What is open must not outlast this call: the caller may exit.
            stopped = self._server.stop(grace)

        def stop() -> None:
            if lame_duck:
                time.sleep(self._lame_duck)
            (self._server.stop(grace) if lame_duck else stopped).wait()
            self._pool.shutdown(wait=False)
            over.set()

        Thread(target=stop, name="accord-stop").start()
        return over

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """As gRPC's own."""
        return bool(self._server.wait_for_termination(timeout))


class _Wrapped(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """A generic handler whose methods are in their pipelines."""

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
