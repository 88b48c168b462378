"""Server interceptor: puts every handler into the pipeline of its method.

It goes first in a server's list of interceptors: to those before it, messages are bytes and every
call sends a stream of them.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from accord.aio import server_handlers as handlers
from accord.aio.server_context import ServerContext
from accord.aio.server_handlers import MethodHandler
from accord.aio.server_idempotency import KeyedCalls
from accord.aio.server_pipeline import Pipeline
from accord.contract.policy import ContractError, MethodPolicy
from accord.contract.registry import method_policy
from accord.server.codec import Codec, codec_of
from accord.server.protocols import AnyHandler, RequestT, ResponseT
from accord.server.registration import Pipelines
from accord.server.request import WORKERS, Peers, Settings, own
from accord.server.stages import Stages
from accord.telemetry.spans import suppressed


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
        super().__init__()
        self._pool = pool or ThreadPoolExecutor(WORKERS, thread_name_prefix="accord-handler")
        self._settings = settings
        self._keyed = (
            KeyedCalls(settings.idempotency, settings.clock) if settings.idempotency else None
        )

    def _wrap(self, method: str, handler: AnyHandler) -> AnyHandler:
        try:
            policy = method_policy(method)
        except ContractError as error:
            return self._broken_contract(method, error)
        # Where it is registered nobody knows a method's types; gRPC's stubs know no aio handler.
        found = cast("MethodHandler[Message, Message]", handler)
        validator = None if own(method) else self._settings.validator
        pipeline = self._pipeline(
            policy,
            codec_of(found, validator),
            self.peers,
            streamed=found.request_streaming,
            streaming=found.request_streaming or found.response_streaming,
        )
        # A single request is read like a stream of one: when gRPC reads it, a call without one is
        # never answered, and none of our limits hold before it comes.
        streamed = found.request_streaming
        if found.response_streaming:
            writes = handlers.many(
                found.stream_stream if streamed else found.unary_stream, self._pool
            )
            return grpc.stream_stream_rpc_method_handler(
                handlers.generator(pipeline.many(writes, streamed=streamed))
            )
        returns = handlers.single(
            found.stream_unary if streamed else found.unary_unary, self._pool, streamed=streamed
        )
        return grpc.stream_unary_rpc_method_handler(pipeline.single(returns, streamed=streamed))

    def _pipeline(
        self,
        policy: MethodPolicy,
        codec: Codec[RequestT, ResponseT],
        peers: Peers,
        *,
        streamed: bool,
        streaming: bool,
    ) -> Pipeline[RequestT, ResponseT]:
        stages = Stages(
            self._settings,
            policy,
            codec,
            peers,
            nullcontext(),
            streamed=streamed,
            streaming=streaming,
        )
        return Pipeline(stages, self._keyed, self._settings.translate)

    def _broken_contract(self, method: str, error: ContractError) -> AnyHandler:
        """A handler that answers INTERNAL to all four arities; the log has the reason."""

        async def refuse(request: bytes | None, context: ServerContext[bytes, bytes]) -> bytes:
            raise error

        codec: Codec[bytes, bytes] = Codec(bytes, bytes, None)
        pipeline = self._pipeline(
            MethodPolicy(method), codec, Peers(), streamed=True, streaming=False
        )
        return grpc.stream_unary_rpc_method_handler(pipeline.single(refuse, streamed=True))
