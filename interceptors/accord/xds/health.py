"""The health of endpoints, watched for clients: gRPC does not let them do so under xDS.

It is asked on the port without certificates, 1,000 above that of gRPC, by `grpc.health.v1`.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Final

import grpc
import grpc.aio
import grpc.experimental
from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord.xds.resources import Endpoint, address

PORT: Final = 1000
"""How far above an endpoint's port that of its health is."""

RETRY: Final = 0.5
"""Seconds before an endpoint is asked again that has ended the watch."""

MAX_WATCHED: Final = 256
"""Endpoints that are watched; others count as healthy."""

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Otherwise two threads wait for an answer, and look fifteen times a second whether it is there.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)


class HealthWatch:
    """Which endpoints have said that they do not serve.

    One that cannot be asked counts as healthy: whether it can be called, gRPC sees by itself.

    They are watched in the event loop in which targets were added, if it still runs, and else by
    threads: each of these wakes up five times a second, as gRPC has it.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = Lock()
        self._watches: dict[Endpoint, _Watch] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def unhealthy(self) -> frozenset[Endpoint]:
        """Those that are not to be called."""
        with self._lock:
            return frozenset(at for at, each in self._watches.items() if not each.serving)

    def watch(self, wanted: Mapping[Endpoint, str]) -> None:
        """Watch these and no others; by endpoint the service, "" for the whole server."""
        with suppress(RuntimeError):  # none runs in this thread
            self._loop = asyncio.get_running_loop()
        loop = self._loop if self._loop and self._loop.is_running() else None
        with self._lock:
            for at in [at for at, each in self._watches.items() if wanted.get(at) != each.service]:
                self._watches.pop(at).stop()
            for at, service in wanted.items():
                if at not in self._watches and len(self._watches) < MAX_WATCHED:
                    self._watches[at] = _Watch(at, service, self._changed, loop)


class _Watch:
    """One endpoint, and what it says; `loop`: where it is waited for, None: in a thread."""

    def __init__(
        self,
        at: Endpoint,
        service: str,
        changed: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.service = service
        self.serving = True
        self._changed = changed
        self._address = address((at[0], at[1] + PORT))
        self._request = health_pb2.HealthCheckRequest(service=service)
        self._stopped = Event()
        self._end: Callable[[], object]
        if loop is None:
            self._begin_thread()
        else:
            following = asyncio.run_coroutine_threadsafe(self._follow(), loop)
            self._end = following.cancel
            following.add_done_callback(self._followed)

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._end()

    async def _follow(self) -> None:
        async with grpc.aio.insecure_channel(self._address, _OPTIONS) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # of which the stubs know nothing
            while True:
                try:
                    async for answer in stub.Watch(self._request, wait_for_ready=True):
                        self._says(answer.status == health_pb2.HealthCheckResponse.SERVING)
                except grpc.aio.AioRpcError as error:
                    self._lost(error.code())
                await asyncio.sleep(RETRY)

    def _followed(self, _: "Future[None]") -> None:
        """The loop has ended, unless the watch was stopped: others of the process go on."""
        if not self._stopped.is_set():
            self._begin_thread()

    def _begin_thread(self) -> None:
        channel = grpc.insecure_channel(self._address, _OPTIONS)
        self._end = channel.close
        name = f"accord-xds-health {self._address}"
        Thread(target=self._run, args=(channel,), name=name, daemon=True).start()

    def _run(self, channel: grpc.Channel) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # as above
        while not self._stopped.is_set():
            try:
                for answer in stub.Watch(self._request, wait_for_ready=True):
                    self._says(answer.status == health_pb2.HealthCheckResponse.SERVING)
            except grpc.RpcError as error:
                self._lost(error.code())
            except ValueError:
                return  # the channel is closed
            self._stopped.wait(RETRY)

    def _lost(self, code: grpc.StatusCode) -> None:
        # Lost after it has said that it does not serve: it stops, as it said.
        if code is not grpc.StatusCode.UNAVAILABLE:
            self._says(True)

    def _says(self, serving: bool) -> None:
        if serving != self.serving and not self._stopped.is_set():
            self.serving = serving
            self._changed()
