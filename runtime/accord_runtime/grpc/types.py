"""Types that servicers are written with."""

from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp


class Context(Protocol):
    """What gRPC gives a handler beside the request: `grpc.aio.ServicerContext`, of any method.

    Who calls, until when, under which key, is said by `accord.current()`; errors are raised.
    """

    def peer(self) -> str:
        """The caller's address."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""

    def cancelled(self) -> bool:
        """Whether the call has been given up."""


def timestamp(seconds: float) -> Timestamp:
    """Unix seconds as protobuf says them, rounded to the microsecond."""
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1e6))
    return moment
