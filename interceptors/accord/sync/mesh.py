"""`mesh.sync`: what a mesh holds for gRPC with threads."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import grpc
from google.protobuf.message import Message
from grpc import _server

from accord.client.channels import Channels
from accord.client.request import ClientSettings
from accord.client.types import Options
from accord.interfaces import SyncIdempotencyStore
from accord.server.registration import LAME_DUCK
from accord.server.request import WORKERS, Settings
from accord.server.types import GenericHandler
from accord.sync import client_interceptors
from accord.sync.client_attempts import Attempts
from accord.sync.client_channel import Channel
from accord.sync.server import Server
from accord.sync.server_interceptors import ServerInterceptor, ServerPipelines
from accord.sync.threads import Pool


class SyncMesh:
    """Channels and servers with threads, on the budgets, breakers and limits of their mesh.

    Safe under threads.
    """

    def __init__(
        self,
        client: ClientSettings,
        settings: Settings,
        *,
        way: Callable[
            [str, grpc.ChannelCredentials | None], tuple[str, grpc.ChannelCredentials | None]
        ],
        channel_options: Callable[[str, Sequence[str], Options], Options],
        server_options: Callable[[Options], Options],
    ) -> None:
        """The functions are its mesh's."""
        self._client = client
        self._settings = settings
        self._way = way
        self._channel_options = channel_options
        self._server_options = server_options
        self._channels: Channels[grpc.Channel] = Channels()

    def channel(
        self,
        target: str,
        *contracts: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Options = (),
        interceptors: Sequence[Any] = (),  # as above
    ) -> grpc.Channel:
        """The channel to a named service: made once, then kept. See `Mesh.channel`."""

        def make() -> grpc.Channel:
            way = self._way(target, credentials)
            made = Channel(
                *way,
                self._channel_options(target, contracts, options),
                Attempts(self._client, target),
            )
            return grpc.intercept_channel(made, *interceptors)

        if credentials is not None or self._settings.identity is not None:
            self._client.env.methods.secure(target)
        key = (target, contracts, tuple(options), *map(id, interceptors))
        return self._channels.find(credentials, key, make)

    def client_interceptors(
        self, target: str = ""
    ) -> list[Any]:  # each is another of gRPC's classes, which are generic in its stubs alone
        """Interceptors for a channel of your own (`grpc.intercept_channel`).

        `target` names what it leads to. Calls that block are not hedged: only a channel of the mesh
        can cancel the one that loses.
        """
        return client_interceptors.interceptors(Attempts(self._client, target))

    def server_interceptors(
        self, *, idempotency: SyncIdempotencyStore | Literal["handler"] | None = None
    ) -> list["grpc.ServerInterceptor[Message, Message]"]:
        """Interceptors for a server of your own; they go before any others.

        `idempotency` finds stored answers; None: the mesh's, if its `lookup` is not awaited.
        """
        return [ServerInterceptor(ServerPipelines(self._settings, idempotency))]

    def server(
        self,
        *,
        idempotency: SyncIdempotencyStore | Literal["handler"] | None = None,
        interceptors: Sequence["grpc.ServerInterceptor[Message, Message]"] = (),
        options: Options = (),
        handlers: Sequence[GenericHandler] | None = None,
        max_workers: int | None = None,
        lame_duck: float = LAME_DUCK,
        maximum_concurrent_rpcs: int | None = None,
        compression: grpc.Compression | None = None,
        xds: bool = False,
    ) -> Server:
        """A server that enforces the contracts of what it serves, with health and drain.

        `max_workers` threads handle as many calls at once; more wait for one, and when they wait
        for too long the least important are refused, if their contracts allow it (`limit`). Each
        open stream has one, but for those of handlers that send by themselves, such as gRPC's
        health service. None: as many as the mesh admits streams, and 320 for other calls; with
        fewer, streams can take them all. They are started when they are needed. `idempotency` as
        in `server_interceptors`, `options`, `handlers` and `lame_duck` as in `Mesh.server`, the
        rest as in `grpc.server`.
        """
        if max_workers is None:
            max_workers = WORKERS + self._settings.state.max_streams
        pool = Pool(max_workers, thread_name_prefix="accord-server")
        pipelines = ServerPipelines(self._settings, idempotency)
        options = self._server_options(options)
        pipelines.peers.callers.bound(options)
        # Beneath any instrumentation: see `accord.aio.client_channel.Channel`.
        server = _server.create_server(
            pool,
            (),
            [ServerInterceptor(pipelines), *interceptors] if interceptors else [],
            tuple(options),
            maximum_concurrent_rpcs,
            compression,
            xds,
        )
        found = Server(
            server,
            pool,
            pipelines=pipelines,
            intercepted=bool(interceptors),
            lame_duck=lame_duck,
        )
        found.add_generic_rpc_handlers(handlers or ())
        return found

    def close(self) -> None:
        """Close all channels, and end their calls."""
        for channel in self._channels.clear():
            channel.close()
