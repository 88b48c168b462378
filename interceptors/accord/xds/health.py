"""The health of endpoints, watched for clients: gRPC does not let them do so under xDS.

It is asked on the port without certificates, 1,000 above that of gRPC, by `grpc.health.v1`.
"""

from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord.xds.resources import Endpoint, address

PORT: Final = 1000
"""How far above an endpoint's port that of its health is."""

RETRY: Final = 0.5
"""Seconds before an endpoint is asked again that has ended the watch."""

MAX_WATCHED: Final = 256
"""Endpoints that are watched, with a thread for each; others count as healthy."""

_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 2_000))


class HealthWatch:
    """Which endpoints have said that they do not serve.

    One that cannot be asked counts as healthy: whether it can be called, gRPC sees by itself.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = Lock()
        self._watches: dict[Endpoint, _Watch] = {}

    def unhealthy(self) -> frozenset[Endpoint]:
        """Those that are not to be called."""
        with self._lock:
            return frozenset(at for at, each in self._watches.items() if not each.serving)

    def watch(self, wanted: Mapping[Endpoint, str]) -> None:
        """Watch these and no others; by endpoint the service, "" for the whole server."""
        with self._lock:
            for at in [at for at, each in self._watches.items() if wanted.get(at) != each.service]:
                self._watches.pop(at).stop()
            for at, service in wanted.items():
                if at not in self._watches and len(self._watches) < MAX_WATCHED:
                    self._watches[at] = _Watch(at, service, self._changed)


class _Watch:
    """One endpoint, and the thread that waits for what it says."""

    def __init__(self, at: Endpoint, service: str, changed: Callable[[], None]) -> None:
        self.service = service
        self.serving = True
        self._changed = changed
        self._channel = grpc.insecure_channel(address((at[0], at[1] + PORT)), _OPTIONS)
        self._stopped = Event()
        Thread(target=self._run, name=f"accord-xds-health {address(at)}", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._channel.close()

    def _run(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self._channel)  # the stubs know its aio kind
        request = health_pb2.HealthCheckRequest(service=self.service)
        while not self._stopped.is_set():
            try:
                for answer in stub.Watch(request, wait_for_ready=True):
                    self._says(answer.status == health_pb2.HealthCheckResponse.SERVING)
            except grpc.RpcError as error:
                # Lost after it has said that it does not serve: it stops, as it said.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self._says(True)
            except ValueError:
                return  # the channel is closed
            self._stopped.wait(RETRY)

    def _says(self, serving: bool) -> None:
        if serving != self.serving and not self._stopped.is_set():
            self.serving = serving
            self._changed()
