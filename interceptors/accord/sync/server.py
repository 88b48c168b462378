"""A server with threads that checks its contracts, tells its health and drains before it stops."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import grpc
from grpc import _server
from grpc_health.v1 import health, health_pb2_grpc

from accord.server.registration import HEALTH, LAME_DUCK, SERVING, Pipelines, Registration


class Server(Registration[_server._Server], grpc.Server):
    """gRPC's server with health and drain: the twin of `accord.aio.server.Server`.

    It serves `grpc.health.v1.Health`, unless a servicer of that name is added: every service that
    it has, and "" for the process, is SERVING between `start` and `stop`.
    """

    def __init__(
        self,
        server: _server._Server,
        pool: ThreadPoolExecutor,
        *,
        pipelines: Pipelines,
        intercepted: bool,
        lame_duck: float = LAME_DUCK,
    ) -> None:
        """`pool` is shut down with it; `pipelines` and `intercepted` as in `Registration`."""
        super().__init__(server, pipelines, intercepted=intercepted)
        self._pool = pool
        self._lame_duck = lame_duck
        self._health: health.HealthServicer | None = None
        self._stopping = False

    def start(self) -> None:
        """Serve, and say so. Raises ContractError: a served method has an invalid policy."""
        names = self._check()
        if HEALTH not in self._services:
            # Made only if needed: gRPC's has settings in its class, those of an application's own.
            self._health = health.HealthServicer()
            for name in names:
                self._health.set(name, SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self)
        self._server.start()

    def set_health(self, service: str, status: int) -> None:
        """As gRPC's own `HealthServicer.set`; a server that drains stays NOT_SERVING."""
        if self._health is not None:
            self._health.set(service, status)

    def stop(self, grace: float | None = None) -> Event:
        """Say "not serving", let callers move away, then stop; None stops at once.

        Returns at once; the event is set when all is over. As in `accord.aio.server.Server.stop`,
        the callers have `lame_duck` seconds to go elsewhere, and calls that run get `grace` seconds
        after that.
        """
        over = Event()
        lame_duck = grace is not None and not self._stopping
        self._stopping = True
        if lame_duck:
            if self._health is not None:
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
        return self._server.wait_for_termination(timeout)
