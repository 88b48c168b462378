"""What gRPC gives to those who serve and takes from them, as far as both of its kinds agree.

gRPC's own stubs leave the messages of a handler open. Here a request and a response keep their
types from the handler to the bytes on the wire. What only one kind of gRPC has is with its driver:
`accord.aio.server_context`, `accord.sync.server_context`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

Req = TypeVar("Req", bound=Message | bytes)
"""A protobuf message, or bytes where a handler takes them as they come."""

Res = TypeVar("Res", bound=Message | bytes)

Status = grpc.StatusCode | int | None
"""A status code as a servicer context has it: a code, its number, or nothing yet."""

NO_ERROR: Final = (None, 0, grpc.StatusCode.OK)
"""Status codes of a context whose handler has set no error."""

Metadata = Iterable[tuple[str, str | bytes]]
Options = Sequence[tuple[str, str | int]]
"""Arguments of gRPC's servers, by name."""

Trailers = tuple[tuple[str, str | bytes], ...]


class GrpcContext(Protocol):
    """What gRPC knows of a call, and lets be said about its end."""

    def invocation_metadata(self) -> Metadata | None:
        """The metadata with which the call came."""

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What is known of the peer: properties of its certificate."""

    def peer(self) -> str:
        """The address of the connection's other end: "ipv4:127.0.0.1:40123"."""

    def trailing_metadata(self) -> Metadata | None:
        """The trailers that were set."""

    def set_details(self, details: str, /) -> None:
        """Set the message of the status."""

    def set_trailing_metadata(self, trailing_metadata: Trailers, /) -> None:
        """Set the trailers of the answer."""

    def code(self) -> Status:
        """The status code that was set."""

    def set_code(self, code: Status, /) -> None:
        """Set the status code of the answer."""

    def details(self) -> str | bytes | None:
        """The message of the status that was set."""


AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Message | bytes, Message | bytes]"
"""A handler where it is registered, of whatever method."""

GenericHandler: TypeAlias = "grpc.GenericRpcHandler[Message | bytes, Message | bytes]"


class MethodHandler(Protocol[Req, Res]):
    """One RPC's handler, as generated code registers it; of its behaviours one is set.

    What a behaviour takes depends on arity and shape: see `accord.aio.server_handler_shapes`.
    """

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], Req] | None
    response_serializer: Callable[[Res], bytes] | None


class HandlerRegistry(Protocol):
    """The part of gRPC's servers that takes handlers and ports."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[GenericHandler], /) -> None:
        """Serve what these handlers know."""

    def add_insecure_port(self, address: str, /) -> int:
        """Listen without TLS; returns the port."""

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials, /) -> int:
        """Listen with TLS; returns the port."""
