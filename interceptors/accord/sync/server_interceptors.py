"""Server interceptor for gRPC with threads: puts every handler into the pipeline of its method."""

import inspect
from collections.abc import Callable
from threading import RLock
from typing import Any, Final

import grpc

from accord.contract.policy import ContractError, MethodPolicy
from accord.contract.registry import method_policy
from accord.interfaces import SyncIdempotencyStore
from accord.server.codec import Codec
from accord.server.registration import Pipelines
from accord.server.request import (
    Settings,
    own,
)
from accord.sync.server_idempotency import KeyedCalls
from accord.sync.server_pipeline import Pipeline
from accord.telemetry.spans import suppressed


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """The pipeline for a server of the user's own."""

    def __init__(self, pipelines: "ServerPipelines") -> None:
        self._pipelines = pipelines

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The method's handler inside its pipeline."""
        with suppressed():
            handler = continuation(handler_call_details)
        return handler and self._pipelines.wrap(handler_call_details.method, handler)


class ServerPipelines(Pipelines):
    """Puts the handlers of a server into their pipelines."""

    def __init__(
        self, settings: Settings, store: SyncIdempotencyStore | None, lock: "RLock"
    ) -> None:
        """`lock` is shared by all servers and channels of a mesh.

        Raises TypeError for a store that has to be awaited.
        """
        if store is not None and inspect.iscoroutinefunction(store.lookup):
            raise TypeError("a sync server needs a SyncIdempotencyStore")
        super().__init__()
        self._settings = settings
        self._lock = lock
        self._keyed = KeyedCalls(store, settings.clock) if store is not None else None

    def _wrap(self, method: str, handler: Any) -> Any:
        codec = Codec(
            handler.request_deserializer,
            handler.response_serializer,
            self._settings.validator if handler.request_deserializer and not own(method) else None,
        )
        streamed, streams = handler.request_streaming, handler.response_streaming
        handle = getattr(handler, _ARITIES[streamed, streams])
        try:
            policy = method_policy(method)
        except ContractError as error:
            policy, handle = MethodPolicy(method), _refuse_with(error)
        pipeline = Pipeline(
            self._settings,
            self._keyed,
            policy,
            codec,
            self.peers,
            self._lock,
            streaming=streamed or streams,
        )
        if not (streamed or streams):
            # Read like a stream of one: when gRPC reads it, a call without a request is answered
            # by gRPC, and none of our checks is made before it comes.
            return grpc.stream_unary_rpc_method_handler(pipeline.unary(handle))
        return grpc.stream_stream_rpc_method_handler(
            pipeline.stream(handle, streamed=streamed, streams=streams)
        )


_ARITIES: Final = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


def _refuse_with(error: ContractError) -> Callable[..., Any]:
    """A handler that answers INTERNAL; the log has the reason."""

    def refuse(request: Any, context: Any) -> Any:
        raise error

    return refuse
