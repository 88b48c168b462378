"""What a handler sees of its call, beside messages: gRPC's servicer context without UNKNOWN."""

from typing import Generic, TypeVar

from accord.server.error_mapping import known, sendable, text
from accord.server.types import GrpcContext, Metadata, Status

ContextT = TypeVar("ContextT", bound=GrpcContext)


class ServicerContext(Generic[ContextT]):
    """gRPC's own, which the drivers extend; what is not said here is passed on to it."""

    __slots__ = ("_context",)

    def __init__(self, context: ContextT) -> None:
        self._context = context

    def __getattr__(self, name: str) -> object:  # whatever else gRPC's own has
        return getattr(self._context, name)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set the trailers of the answer.

        Raises as `sendable` for trailers with which gRPC would never end the call.
        """
        self._context.set_trailing_metadata(sendable(trailing_metadata))

    def set_details(self, details: str) -> None:
        """Set the status message of the answer."""
        self._context.set_details(text(details))

    def set_code(self, code: Status) -> None:
        """Set the status code of the answer."""
        self._context.set_code(known(code))

    def code(self) -> Status:
        """The status code that was set."""
        return self._context.code()
