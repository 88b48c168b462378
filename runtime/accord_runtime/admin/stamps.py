"""Unix seconds as protobuf says them."""

from google.protobuf.timestamp_pb2 import Timestamp


def stamp(seconds: float) -> Timestamp:
    """A moment, to the microsecond."""
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1e6))
    return moment
