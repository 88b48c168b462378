"""Server interceptor for gRPC with threads: puts every handler into the pipeline of its method."""

from collections.abc import Callable
from typing import Literal, cast

import grpc
from google.protobuf.message import Message

from accord.interfaces import SyncIdempotencyStore
from accord.server.idempotency import is_awaited, is_blocking
from accord.server.registration import Pipelines
from accord.server.request import Settings
from accord.server.types import AnyHandler
from accord.sync.server_call import MethodHandler, Pipeline, StreamBehaviour, UnaryBehaviour
from accord.sync.server_idempotency import KeyedCalls
from accord.telemetry.instrumentation import suppressed


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]  # in gRPC's stubs alone
    """The pipeline for a server of the user's own."""

    def __init__(self, pipelines: "ServerPipelines") -> None:
        self._pipelines = pipelines

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], AnyHandler | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "AnyHandler | None":
        """The method's handler inside its pipeline."""
        with suppressed():
            handler = continuation(handler_call_details)
        return handler and self._pipelines.wrap(handler_call_details.method, handler)


class ServerPipelines(Pipelines):
    """Puts the handlers of a server into their pipelines."""

    def __init__(
        self, settings: Settings, store: "SyncIdempotencyStore | Literal['handler'] | None"
    ) -> None:
        """Without `store` it is the mesh's. Raises TypeError for one that has to be awaited."""
        if is_awaited(store):
            raise TypeError("a sync server needs a SyncIdempotencyStore")
        found = settings.idempotency if store is None else store
        self._keyed = KeyedCalls(found, settings.clock) if is_blocking(found) else None
        super().__init__(
            settings,
            keeps_keys=self._keyed is not None or found == "handler",
            remedy="give mesh.sync.server(idempotency=...) a store whose `lookup` is not awaited, "
            'or "handler" if the handler recognises repeats itself',
        )

    def _wrap(self, method: str, handler: AnyHandler) -> AnyHandler:
        # Where it is registered nobody knows a method's types.
        found = cast("MethodHandler[Message, Message]", handler)
        stages = self._stages(method, found)
        streamed, streams = found.request_streaming, found.response_streaming
        pipeline = Pipeline(stages, self._keyed)
        # Of a handler's behaviours only the one that counts need be there.
        if streams:
            many = found.stream_stream if streamed else found.unary_stream
            return grpc.stream_stream_rpc_method_handler(StreamBehaviour(pipeline, many=many))
        one = found.stream_unary if streamed else found.unary_unary
        if streamed:
            return grpc.stream_stream_rpc_method_handler(StreamBehaviour(pipeline, one=one))
        # Read like a stream of one: when gRPC reads it, a call without a request is answered by
        # gRPC, and none of our checks is made before it comes.
        return grpc.stream_unary_rpc_method_handler(UnaryBehaviour(pipeline, one))
