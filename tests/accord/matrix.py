"""Four arities times eight endings: what both kinds of gRPC are tried with, and what must hold."""

from contextlib import AbstractContextManager, closing
from typing import Any, Final

import grpc
from google.protobuf import duration_pb2

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.breaker import State
from accord.testing.tcp_proxy import TcpProxy
from accord.v1 import policy_pb2
from tests.accord.kit import Message, path
from tests.support.telemetry import Spans

ARITIES: Final = ["Unary", "ServerStream", "ClientStream", "Bidi"]
ENDINGS: Final = {
    "ok": "OK",
    "error": "NOT_FOUND",
    "deadline": "DEADLINE_EXCEEDED",
    "caller cancels": "CANCELLED",
    "server cancels": "CANCELLED",
    "abandoned": "CANCELLED",
    "never read": "DEADLINE_EXCEEDED",
    "connection lost": "UNAVAILABLE",
}
"""How a call ends, and the status that its caller has seen then."""

SHORT: Final = 0.15
"""Seconds of a call that is ended by its deadline."""

_MOMENT: Final = duration_pb2.Duration(nanos=1_000_000)
_FRAGILE: Final = policy_pb2.Breaker(consecutive_failures=1, open=_MOMENT, max_open=_MOMENT)


def line_to(address: str) -> AbstractContextManager[TcpProxy]:
    """A line to a server, "host:port", that can be cut."""
    return closing(TcpProxy(int(address.rpartition(":")[2])))


def many_requests(method: str) -> bool:
    """Whether a method has a stream of requests."""
    return method in ("ClientStream", "Bidi")


def many_responses(method: str) -> bool:
    """Whether a method has a stream of responses."""
    return method in ("ServerStream", "Bidi")


def argument(method: str, text: str) -> Any:
    """What a method is called with."""
    request = Message(text=text)
    return iter([request]) if many_requests(method) else request


def timeout(method: str, ending: str) -> float:
    """Seconds of a call that is to end so."""
    late = ending in ("deadline", "never read")
    return SHORT if late or (ending == "abandoned" and not many_responses(method)) else 2.0


def expected(method: str, ending: str) -> set[str]:
    """The codes with which a call may end.

    One with a single response that nobody asks for goes on, at most to its deadline.
    """
    if ending == "abandoned" and not many_responses(method):
        return {"CANCELLED", "DEADLINE_EXCEEDED"}
    return {ENDINGS[ending]}


def fragile() -> accord.Mesh:
    """A caller's mesh whose breakers open at the first failure, for a moment."""
    mesh = accord.Mesh("caller")
    for method in ARITIES:
        policy = policy_pb2.MethodPolicy(breaker=_FRAGILE)
        mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy))
    return mesh


def state_of(mesh: accord.Mesh) -> State:
    """The state of the one breaker."""
    (route,) = mesh.snapshot().routes
    assert route.breaker is not None
    return route.breaker.state


def one_span_a_side(spans: Spans, ending: str) -> bool:
    """Whether the first call and this one have a span on each side.

    A short deadline may pass before a busy server has seen the call.
    """
    late = ending in ("deadline", "never read", "abandoned")
    return len(spans.clients) == 2 and len(spans.servers) in ((1, 2) if late else (2,))


def code_of(spans: Spans, number: int) -> str:
    """The status that the span of the client's call of this number has."""
    return str((spans.clients[number].attributes or {})["rpc.response.status_code"])


def status(error: BaseException) -> str:
    """The status that an error of a call tells."""
    if isinstance(error, grpc.RpcError):
        return str(error.code().name)
    return "CANCELLED"
