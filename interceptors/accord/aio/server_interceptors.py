"""Server interceptor: puts every handler into the pipeline of its method.

It goes first in a server's list of interceptors: to those before it, messages are bytes and every
call sends a stream of them.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from accord.aio import server_handlers as handlers
from accord.aio.server_context import ServerContext
from accord.aio.server_idempotency import KeyedCalls
from accord.aio.server_pipeline import Pipeline
from accord.contract.policy import ContractError, MethodPolicy
from accord.contract.registry import method_policy
from accord.server.codec import Codec
from accord.server.registration import Pipelines
from accord.server.request import (
    WORKERS,
    Peers,
    Settings,
    own,
)
from accord.telemetry.spans import suppressed


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Enforces the contract of every method that a server serves."""

    def __init__(self, settings: Settings, pool: Executor | None = None) -> None:
        """`pool` as in `ServerPipelines`."""
        self._pipelines = ServerPipelines(settings, pool)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
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
        super().__init__()
        self._pool = pool or ThreadPoolExecutor(WORKERS, thread_name_prefix="accord-handler")
        self._settings = settings
        self._keyed = (
            KeyedCalls(settings.idempotency, settings.clock) if settings.idempotency else None
        )

    def _wrap(self, method: str, handler: Any) -> Any:
        try:
            policy = method_policy(method)
        except ContractError as error:
            return _broken_contract(method, self._settings, error)
        codec = Codec(
            handler.request_deserializer,
            handler.response_serializer,
            self._settings.validator if handler.request_deserializer and not own(method) else None,
        )
        streaming = handler.request_streaming or handler.response_streaming
        pipeline = Pipeline(
            self._settings, self._keyed, policy, codec, self.peers, streaming=streaming
        )
        # A single request is read like a stream of one: when gRPC reads it, a call without one is
        # never answered, and none of our limits hold before it comes.
        streamed = handler.request_streaming
        if handler.response_streaming:
            handle = handler.stream_stream if streamed else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(
                handlers.generator(
                    pipeline.many(handlers.many(handle, self._pool), streamed=streamed)
                )
            )
        handle = handler.stream_unary if streamed else handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(
            pipeline.single(
                handlers.single(handle, self._pool, streamed=streamed), streamed=streamed
            )
        )


def _broken_contract(method: str, settings: Settings, error: ContractError) -> Any:
    """A handler that answers INTERNAL to all four arities; the log has the reason."""

    async def refuse(request: Any, outer: ServerContext) -> Any:
        raise error

    pipeline = Pipeline(
        settings, None, MethodPolicy(method), Codec(None, None, None), Peers(), streaming=False
    )
    return grpc.stream_unary_rpc_method_handler(pipeline.single(refuse, streamed=True))
