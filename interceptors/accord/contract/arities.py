"""Fields of a contract that say nothing of an RPC, because of what it sends and gets.

Stated for the RPC itself one is refused, since nobody would keep it; in the defaults of a service
it is meant for the service's other RPCs.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor

from accord.v1.policy_pb2 import MethodPolicy

_NO_RETRY = {"retry": "a stream of requests is sent once"}
_NO_STREAM = {"stream": "it streams nothing"}
_STREAM = {
    "hedge": "only a call of one request and one response is made twice",
    "cache": "only an answer of one response to one request is kept",
}


def unused(method: MethodDescriptor, *stated: MethodPolicy) -> Iterator[tuple[str, str]]:
    """Fields that all of these state and that do nothing for this method, and why."""
    streaming = method.client_streaming or method.server_streaming
    reasons = {**(_STREAM if streaming else _NO_STREAM)}
    if method.client_streaming:
        reasons |= _NO_RETRY
    for field, why in reasons.items():
        if all(each.HasField(field) for each in stated):  # type: ignore[arg-type]  # a name
            yield field, why
