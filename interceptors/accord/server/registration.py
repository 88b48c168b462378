"""What a server serves, on its way into the pipelines: the same for both kinds of gRPC."""

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from accord.contract.names import described
from accord.contract.policy_types import ContractError, Key, MethodPolicy
from accord.contract.registry import check_service, travelling_policy
from accord.server.callers import Callers
from accord.server.codec import Codec
from accord.server.request import Peers, Settings, own
from accord.server.stage_order import Stages
from accord.server.state import MAX_METHODS
from accord.server.types import AnyHandler, GenericHandler, HandlerRegistry, MethodHandler

LAME_DUCK: Final = 0.3
"""Seconds between "not serving" and the stop, in which callers move away."""

HEALTH: Final = "grpc.health.v1.Health"
SERVING: Final = health_pb2.HealthCheckResponse.SERVING

ServerT = TypeVar("ServerT", bound=HandlerRegistry)


class Pipelines:
    """Puts the handlers of one server into their pipelines, each once."""

    def __init__(self, settings: Settings, *, keeps_keys: bool, remedy: str) -> None:
        """`keeps_keys`: somebody recognises repeats by their keys; `remedy`: how to have it so."""
        self.peers = Peers(Callers(settings.identity))
        self.serves: Final = settings.state.serves
        self._keeps_keys = keeps_keys
        self._remedy = remedy
        self._settings = settings
        self._wrapped: dict[str, tuple[AnyHandler, AnyHandler]] = {}

    def wrap(self, method: str, handler: AnyHandler) -> AnyHandler:
        """A handler inside its pipeline."""
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            if len(self._wrapped) >= MAX_METHODS:
                self._wrapped.clear()  # a generic handler that serves any name
            known = self._wrapped[method] = (handler, self._wrap(method, handler))
        return known[1]

    def _wrap(self, method: str, handler: AnyHandler) -> AnyHandler:
        raise NotImplementedError

    def check(self, policy: MethodPolicy) -> None:
        """Raise ContractError for a promise that this server cannot keep."""
        if policy.key is Key.REQUIRED and not policy.streaming and not self._keeps_keys:
            found = described(policy.method)
            assert found is not None  # it has a contract
            raise ContractError(
                found.containing_service.file.name,
                policy.method[1:],
                "idempotency.key",
                f"KEY_REQUIRED promises that a repeat acts once, and nobody keeps it here: "
                f"{self._remedy}",
            )

    def _stages(
        self, method: str, handler: MethodHandler[Message, Message]
    ) -> Stages[Message, Message]:
        """The stages of a method."""
        broken = None
        try:
            policy = travelling_policy(method)
            self.check(policy)
        except ContractError as error:
            policy, broken = MethodPolicy(method), error
        streamed = handler.request_streaming
        return Stages(
            self._settings,
            policy,
            Codec(handler, None if own(method) else self._settings.validator),
            self.peers,
            streamed=streamed,
            streaming=streamed or handler.response_streaming,
            broken=broken,
        )


class Registration(Generic[ServerT]):
    """The part of a server that takes handlers and ports."""

    def __init__(self, server: ServerT, pipelines: Pipelines, *, intercepted: bool) -> None:
        """`intercepted`: `server` has an interceptor that puts its handlers into `pipelines`."""
        self._server = server
        self._pipelines = pipelines
        self._intercepted = intercepted
        pipelines.peers.secure = intercepted
        self._services: dict[str, None] = {}
        self._generic: list[GenericHandler] = []
        self._registered: dict[str, AnyHandler] = {}
        self.add_generic_rpc_handlers((_Registered(self._registered),))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None:
        """As gRPC's own."""
        handlers = tuple(generic_rpc_handlers)
        for handler in handlers:
            name = handler.service_name() if hasattr(handler, "service_name") else None
            if name:
                self._services[name] = None
                self._pipelines.serves.add(name)
        self._generic += handlers
        if not self._intercepted:
            handlers = tuple(
                # What is none is left to gRPC, which says so.
                _Piped(handler, self._pipelines) if hasattr(handler, "service") else handler
                for handler in handlers
            )
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, AnyHandler]
    ) -> None:
        """As gRPC's own; they come before generic ones.

        gRPC is not told: it asks for the calls of each by itself, which `aio.server_core` cannot
        take over, and it goes through all of its methods for each call.
        """
        self._services[service_name] = None
        self._pipelines.serves.add(service_name)
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    def add_insecure_port(self, address: str) -> int:
        """As gRPC's own."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """As gRPC's own."""
        self._pipelines.peers.secure = True
        return self._server.add_secure_port(address, server_credentials)

    def _check(self) -> tuple[str, ...]:
        """The names that a health service knows.

        Raises ContractError: a served method has an invalid policy, or one whose promise cannot be
        kept here.
        """
        for name in self._services:
            try:
                policies = check_service(name)
            except KeyError:
                continue  # its code has not been imported: nothing is declared
            for policy in policies:
                if self._serves(policy.method):
                    self._pipelines.check(policy)
        return ("", *self._services)

    def _serves(self, method: str) -> bool:
        details = _Probe(method)
        return any(handler.service(details) is not None for handler in self._generic)


class _Probe(grpc.HandlerCallDetails):
    """Asks a generic handler for a method, as a call does."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class _Registered(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # as below
    """Handlers by the names of their methods."""

    def __init__(self, handlers: Mapping[str, AnyHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "AnyHandler | None":
        """The handler of a method, or None."""
        return self._handlers.get(handler_call_details.method)


class _Piped(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in gRPC's stubs alone
    """A generic handler whose methods are in their pipelines.

    Cheaper than an interceptor, which gRPC calls for each RPC.
    """

    def __init__(self, handler: GenericHandler, pipelines: Pipelines) -> None:
        self._handler = handler
        self._pipelines = pipelines

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "AnyHandler | None":
        """The handler of a method, or None."""
        found = self._handler.service(handler_call_details)
        return found and self._pipelines.wrap(handler_call_details.method, found)
