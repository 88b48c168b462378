"""The control plane's server: streams of xDS over gRPC with threads.

Not over `grpc.aio`: a second event loop in a process is woken by each event of the first one's
calls, and the control plane has to answer while the process's own loop is busy.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as Resource

from accord._log import log
from accord.xds.subscription import Subscription, TooMany
from accord.xds.v3 import discovery_pb2 as pb

T = TypeVar("T")

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"

MAX_STREAMS: Final = 1000
"""Clients at once; each has two threads. A client has a stream for each of its targets."""

Find = Callable[[str, str, str], Resource | None]
"""Given a type, a name and the caller's identity, the resource as it is now."""

_Event = pb.DiscoveryRequest | None
"""None: resources have changed."""


class _Threads(ThreadPoolExecutor):
    """A thread for each stream, which does not keep the process from ending."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """See `concurrent.futures.Executor.submit`."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

        Thread(target=run, name="accord-xds", daemon=True).start()
        return done


class Server:
    """Serves what `find` finds to whoever asks, and again when it is told of changes."""

    def __init__(
        self, address: str, find: Find, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        """`address`: "unix:/path", or a host and a port; `credentials` of mutual TLS, or None.

        Raises RuntimeError: the address is taken, or cannot be.
        """
        self._find = find
        self._lock = Lock()
        self._streams: dict[SimpleQueue[_Event | StopIteration], Subscription] = {}
        self._server = grpc.server(
            _Threads(),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 256 * 1024)],
            maximum_concurrent_rpcs=MAX_STREAMS,
        )
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=pb.DiscoveryRequest.FromString,
            response_serializer=pb.DiscoveryResponse.SerializeToString,
        )
        handlers = {"StreamAggregatedResources": handler}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        if address.startswith("unix:"):
            Path(address.removeprefix("unix:")).chmod(0o600)  # before it answers
        self._server.start()

    def push(self) -> None:
        """Send what has changed to those who want it."""
        with self._lock:
            streams = list(self._streams)
        for events in streams:
            events.put(None)

    def refusals(self) -> list[str]:
        """What clients have refused last, and why."""
        with self._lock:
            streams = list(self._streams.values())
        return [
            f"{kind.rpartition('.')[2]}: {why}"
            for each in streams
            for kind, why in each.refusals().items()
        ]

    def unused(self, patience: float) -> bool:
        """Whether no client is left, after so many seconds at most."""
        until = time.monotonic() + patience
        while self._streams and time.monotonic() < until:
            time.sleep(0.005)
        return not self._streams

    def stop(self) -> None:
        """End all streams; clients go on with what they have."""
        self._server.stop(None).wait()

    def _stream(
        self, requests: Iterator[pb.DiscoveryRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.DiscoveryResponse]:
        caller = ""

        def find(kind: str, name: str) -> Resource | None:
            return self._find(kind, name, caller)

        events: SimpleQueue[_Event | StopIteration] = SimpleQueue()
        subscription = Subscription(find)
        Thread(target=_read, args=(requests, events), name="accord-xds-read", daemon=True).start()
        with self._lock:
            self._streams[events] = subscription
        try:
            while not isinstance(event := events.get(), StopIteration):
                if event is None:
                    yield from subscription.pushed()
                    continue
                caller = caller or _caller(event.node.id, context)
                if event.HasField("error_detail"):
                    log(
                        logging.ERROR,
                        "a client refuses what the control plane has sent",
                        client=event.node.id or caller,
                        problem=event.error_detail.message[:500],
                    )
                yield from subscription.asked(event)
        except TooMany:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many resources")
        finally:
            with self._lock:
                del self._streams[events]


def _caller(node: str, context: grpc.ServicerContext) -> str:
    """The identity of a client: that of its certificate; without TLS what it says, or "-"."""
    found: Mapping[str, Any] = context.auth_context()  # lists, which the stubs do not know
    if found.get("transport_security_type") == [b"ssl"]:
        ids = found.get("peer_spiffe_id", [])
        return ids[0].decode() if len(ids) == 1 else "-"
    return node or "-"


def _read(
    requests: Iterator[pb.DiscoveryRequest], events: "SimpleQueue[_Event | StopIteration]"
) -> None:
    try:
        for request in requests:
            events.put(request)
    except Exception:  # the stream has ended, as gRPC says by one of its own
        pass
    events.put(StopIteration())
