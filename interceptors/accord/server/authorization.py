"""Authorisation: whether the contract allows this caller to make this call.

Identities come from certificates: without mutual TLS nobody has one. An anonymous caller passes, as
on a development machine's loopback, unless the mesh says that identities are needed; then nobody
passes whom the contract does not list, and else everybody where it lists nobody.
"""

from functools import partial
from typing import Final, Literal

from accord.context import ANONYMOUS, CallContext
from accord.contract.names import OPERATED
from accord.contract.policy_types import MethodPolicy
from accord.contract.registry import method_policy
from accord.errors import PermissionDenied, ServiceError, Unauthenticated
from accord.server.callers import Caller
from accord.server.request import own

Authorize = bool | Literal["dark"]
"""Whether every caller needs an identity that the contract lists; "dark": it is said of those who
have none, who pass."""

NOT_ALLOWED: Final = "NOT_ALLOWED"
"""ErrorInfo reason: the contract does not list the caller's identity."""

NO_IDENTITY: Final = "NO_IDENTITY"
"""ErrorInfo reason: the caller has no verified identity, where one is needed."""

EVERYBODY: Final = "*"
"""In a contract's list: every verified identity of the trust domains that are accepted."""

_OPERATED: Final = "/accord.ops.v1.MeshService/GetState"
"""Who may call it may look into the process by gRPC's own services."""

_HEALTH: Final = "/grpc.health."
_SHOWN: Final = 8


def ruling(method: MethodPolicy) -> MethodPolicy:
    """The policy that says who may call a method: gRPC's own, which have none, are the operator's.

    But for health, which is open: probes have no certificate.
    """
    return method_policy(_OPERATED) if own(method.method) else method


def opened(method: str) -> bool:
    """Whether a method is everybody's, whatever is authorised."""
    return method.startswith(_HEALTH)


def denial(
    policy: MethodPolicy,
    principal: str,
    *,
    identified: bool,
    why: str = "",
    operates: bool | None = None,
) -> ServiceError | None:
    """Why a call is refused; None: it is not.

    `identified`: every caller needs an identity; `why` says why this one has none. `operates`:
    whether it operates the process, if that is not for the contract to say.
    """
    allow = ruling(policy).allow
    if principal == ANONYMOUS:
        if identified:
            needed = "needs a certificate with one URI, which is the caller's SPIFFE id"
            return Unauthenticated(NO_IDENTITY, f"{needed}: {why}" if why else needed)
    elif operates is not None and policy.method.startswith(OPERATED):
        if not operates:
            text = f"{principal} may not call {policy.method[1:]}: it does not operate this process"
            return PermissionDenied(NOT_ALLOWED, text)
    elif (identified or allow) and not allow & {EVERYBODY, principal}:
        named = sorted(allow)
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        who = f"{', '.join(named[:_SHOWN])}{more}" if named else "nobody"
        return PermissionDenied(
            NOT_ALLOWED,
            f"{principal} may not call {policy.method[1:]}: its contract allows {who}",
        )
    return None


def check(
    call: CallContext, authorize: Authorize, caller: Caller
) -> tuple[ServiceError | None, ServiceError | None]:
    """Why a call is refused, and why it would be: one of them, or none."""
    policy = call.policy
    if caller.reason:
        return PermissionDenied(caller.reason, caller.text), None
    judge = partial(denial, policy, call.principal, why=caller.text, operates=caller.operates)
    found = judge(identified=bool(authorize))
    if authorize != "dark":
        return found, None
    acts = None if own(policy.method) else judge(identified=False)
    return acts, None if acts else found
