"""Server interceptor: puts every handler into the pipeline of its method.

It goes first in a server's list of interceptors: to those before it, messages are bytes and every
call sends a stream of them.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from accord.aio.server_call import Pipeline
from accord.aio.server_core import Resets
from accord.aio.server_handler_shapes import MethodHandler, generator, many, single
from accord.aio.server_idempotency import InThreads, KeyedCalls
from accord.server.idempotency import is_awaited, is_blocking
from accord.server.registration import Pipelines
from accord.server.request import WORKERS, Settings
from accord.server.types import AnyHandler
from accord.telemetry.instrumentation import suppressed


# gRPC's class is generic in its stubs alone.
class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Enforces the contract of every method that a server serves."""

    def __init__(self, pipelines: "ServerPipelines") -> None:
        self._pipelines = pipelines

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[AnyHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> AnyHandler:
        """The method's handler inside its pipeline."""
        with suppressed():
            handler = await continuation(handler_call_details)
        return handler and self._pipelines.wrap(handler_call_details.method, handler)


class ServerPipelines(Pipelines):
    """Puts the handlers of one server into their pipelines."""

    def __init__(self, settings: Settings, pool: Executor | None = None) -> None:
        """`pool`: where handlers run that are functions; None: in threads of their own.

        Not in the event loop's own pool: it is small, and others need it.
        """
        self._pool = pool or ThreadPoolExecutor(WORKERS, thread_name_prefix="accord-handler")
        store = settings.idempotency
        if is_blocking(store):
            store = InThreads(store, self._pool)
        self._keyed = KeyedCalls(store, settings.clock) if is_awaited(store) else None
        super().__init__(
            settings,
            keeps_keys=self._keyed is not None or store == "handler",
            remedy='give Mesh(idempotency=...) a store, or "handler" if the handler recognises '
            "repeats itself",
        )
        self._resets = Resets()

    def _wrap(self, method: str, handler: AnyHandler) -> AnyHandler:
        # Where it is registered nobody knows a method's types; gRPC's stubs know no aio handler.
        found = cast("MethodHandler[Message, Message]", handler)
        stages = self._stages(method, found)
        pipeline = Pipeline(stages, self._keyed, self._resets)
        # A single request is read like a stream of one: when gRPC reads it, a call without one is
        # never answered, and none of our limits hold before it comes.
        streamed = found.request_streaming
        if found.response_streaming:
            writes = many(found.stream_stream if streamed else found.unary_stream, self._pool)
            return grpc.stream_stream_rpc_method_handler(generator(pipeline.behaviour(many=writes)))
        handle = found.stream_unary if streamed else found.unary_unary
        returns = single(handle, self._pool, streamed=streamed)
        return grpc.stream_unary_rpc_method_handler(pipeline.behaviour(single=returns))
