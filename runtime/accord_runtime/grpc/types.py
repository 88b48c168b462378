"""Types that servicers are written with."""

from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import InvalidArgument

Context: TypeAlias = object
"""What gRPC gives a handler beside the request, `grpc.aio.ServicerContext`: nothing is asked of it.

Who calls, until when, under which key, is said by `accord.current()`; errors are raised.
"""

Trailed: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The same, of a handler that says something in trailers beside its response."""


def timestamp(seconds: float) -> Timestamp:
    """Unix seconds as protobuf says them, rounded to the microsecond."""
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1e6))
    return moment


def unix_seconds(moment: Timestamp, field: str) -> float:
    """A time in a request as Unix seconds.

    Raises:
        InvalidArgument: it is none, as with `nanos` below 0, which rules of the contract do not
            see; `field` is named.
    """
    try:
        return moment.ToMicroseconds() / 1e6
    except ValueError as error:
        raise InvalidArgument((field, "must be a time")) from error


def duration(seconds: float) -> Duration:
    """Seconds as protobuf says them, rounded to the millisecond."""
    length = Duration()
    length.FromMilliseconds(round(seconds * 1e3))
    return length
