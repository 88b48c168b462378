"""Authorisation: whether the contract allows this caller to make this call.

Identities come from certificates: without mutual TLS nobody has one. An anonymous caller passes, as
on a development machine's loopback, unless the mesh says that identities are needed; then nobody
passes whom the contract does not list, and else everybody where it lists nobody.
"""

from typing import Final

from accord.context import ANONYMOUS, CallContext
from accord.contract.registry import method_policy
from accord.errors import PermissionDenied
from accord.server.request import own

NOT_ALLOWED: Final = "NOT_ALLOWED"
"""ErrorInfo reason: the contract does not list the caller's identity."""

NO_IDENTITY: Final = "NO_IDENTITY"
"""ErrorInfo reason: the caller has no verified identity, where one is needed."""

_EVERYBODY: Final = "*"
_OPERATED: Final = "/accord.ops.v1.MeshService/GetState"
"""Who may call it may look into the process by gRPC's own services."""


def denial(call: CallContext, *, identified: bool) -> PermissionDenied | None:
    """Why a call is refused; None: it is not. `identified`: every caller needs an identity."""
    policy = method_policy(_OPERATED) if own(call.policy.method) else call.policy
    if call.principal == ANONYMOUS:
        if identified:
            return PermissionDenied(NO_IDENTITY, "needs a certificate with an identity")
    elif (identified or policy.allow) and not policy.allow & {_EVERYBODY, call.principal}:
        return PermissionDenied(
            NOT_ALLOWED, f"{call.principal} may not call {call.policy.method[1:]}"
        )
    return None
