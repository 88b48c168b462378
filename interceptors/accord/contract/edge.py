"""The route to the outside of a method: `(accord.v1.edge)`, read and checked."""

import math
import re
from collections.abc import Callable
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2

from accord.contract.policy_types import ContractError, EdgePolicy
from accord.policies.rate_limit import RatePolicy
from accord.v1 import edge_pb2, policy_pb2

_PATH: Final = re.compile(
    r"(?:/(?:(?!\.{1,2}(?:/|$))[\w.~-]+|\{[A-Za-z_]\w*\}))+(?::[A-Za-z]\w*)?", re.ASCII
)
_SCOPE: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_PURE: Final = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
_kinds = pb.FieldDescriptor
_IN_PATH: Final = frozenset(
    {_kinds.CPPTYPE_INT32, _kinds.CPPTYPE_INT64, _kinds.CPPTYPE_UINT32, _kinds.CPPTYPE_UINT64}
    | {_kinds.CPPTYPE_BOOL}
)

Refuse = Callable[[str, str], ContractError]
"""Makes the error of a field and its problem."""


def read_edge(
    method: pb.MethodDescriptor, raw: edge_pb2.EdgeRoute | None, refuse: Refuse
) -> EdgePolicy | None:
    """What the option of a method comes to; None without one. Raises ContractError."""
    if raw is None:
        return None
    verb = raw.WhichOneof("pattern")
    if verb is None:
        raise refuse("edge", "contains no path such as get: '/v1/orders/{order_id}'")
    if method.client_streaming:
        raise refuse("edge", "a stream of requests cannot be sent from outside")
    path: str = getattr(raw, verb)
    if not _PATH.fullmatch(path):
        raise refuse(f"edge.{verb}", f"{path!r} is not a path such as '/v1/orders/{{order_id}}'")
    edge = EdgePolicy(
        verb.upper(),
        path,
        frozenset(raw.scopes),
        raw.public,
        read_rate("edge.rate", raw.rate, refuse) if raw.HasField("rate") else None,
    )
    if len(set(edge.fields)) < len(edge.fields):
        raise refuse(f"edge.{verb}", "contains a field twice")
    for name in edge.fields:
        field = method.input_type.fields_by_name.get(name)
        if field is None:
            raise refuse(f"edge.{verb}", f"{method.input_type.full_name} has no field {name!r}")
        if field.is_repeated or not (
            field.type == _kinds.TYPE_STRING or field.cpp_type in _IN_PATH
        ):
            raise refuse(f"edge.{verb}", f"field {name!r} is not a string, an integer or a bool")
    if verb == "get" and method.GetOptions().idempotency_level != _PURE:
        raise refuse("edge.get", "only an RPC with NO_SIDE_EFFECTS may be read")
    for scope in raw.scopes:
        if not _SCOPE.fullmatch(scope):
            raise refuse("edge.scopes", f"{scope!r} is not a scope such as 'orders:read'")
    if len(edge.scopes) < len(raw.scopes):
        raise refuse("edge.scopes", "contains a scope twice")
    if bool(edge.scopes) is edge.public:
        problem = "contradicts edge.scopes" if edge.public else "is empty, and it is not public"
        raise refuse("edge.public" if edge.public else "edge.scopes", problem)
    return edge


def read_rate(field: str, raw: policy_pb2.Rate, refuse: Refuse) -> RatePolicy:
    """A rate; its burst is, if not stated, what it adds in a second. Raises ContractError."""
    if not 0 < raw.per_second < math.inf:
        raise refuse(f"{field}.per_second", "must be more than zero")
    return RatePolicy(raw.per_second, raw.burst or math.ceil(raw.per_second))
