"""Fields of a contract that say nothing of an RPC, because of what it sends and gets.

Stated for the RPC itself one is refused, since nobody would keep it; in the defaults of a service
it is meant for the service's other RPCs.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor

from accord.v1.policy_pb2 import MethodPolicy


def unused(method: MethodDescriptor, *stated: MethodPolicy) -> Iterator[tuple[str, str]]:
    """Fields that all of these state and that do nothing for this method, and why."""
    streaming = method.client_streaming or method.server_streaming
    for field, useless, why in (
        ("retry", method.client_streaming, "a stream of requests is sent once"),
        ("hedge", streaming, "only a call of one request and one response is made twice"),
        ("cache", streaming, "only an answer of one response to one request is kept"),
        ("stream", not streaming, "it streams nothing"),
    ):
        if useless and all(each.HasField(field) for each in stated):  # type: ignore[arg-type]
            yield field, why
