"""What a call comes with: its metadata, its caller, its time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from accord import context, errors
from accord.context import CallContext
from accord.contract.names import GRPC
from accord.interfaces import Repeats, Validator
from accord.policies.call_depth import DEPTH_KEY, read_depth
from accord.policies.consistency import CONSISTENCY_KEY, read_token
from accord.policies.fault_injection import FAULT_KEY, readable
from accord.policies.retry import ATTEMPT_KEY, read_attempt
from accord.server.callers import Callers
from accord.server.state import ServerState
from accord.server.types import GrpcContext
from accord.telemetry.propagation import HEADERS

if TYPE_CHECKING:
    from accord.identity import Identity

WORKERS: Final = 320
"""Threads for handlers; they are started when they are needed, and idle ones are used again."""

READ: Final = HEADERS | {
    DEPTH_KEY,
    FAULT_KEY,
    ATTEMPT_KEY,
    context.PRIORITY_KEY,
    context.IDEMPOTENCY_KEY,
    CONSISTENCY_KEY,
    context.USER_KEY,
    context.SHADOW[0],
}
"""The metadata that the library reads. Of several values under one key the last one counts."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pipeline of one process works with."""

    service: str
    clock: Callable[[], float]
    state: ServerState
    validator: Validator | None = None
    idempotency: Repeats | None = None
    """None: nobody, so no method may require keys."""
    translate: errors.Translate | None = None
    authorize: bool | Literal["dark"] = False
    """Whether every caller needs a verified identity that the contract lists; "dark": this is said,
    and acts on nobody. One that has an identity is checked by a list in any case."""
    identity: "Identity | None" = None
    """Whose trust domains and deny list its callers are checked by."""
    users: Callable[[str | bytes], context.User] | None = None
    """Reads the token of an end user, or raises Unauthenticated; None: nobody looks at it."""


@dataclass(slots=True)
class Peers:
    """The callers of a server, and whether they may have certificates.

    Where they cannot, nobody is asked for one: it costs as much as half of all other checks.
    """

    callers: Callers
    secure: bool = True


def holders(grpc_context: GrpcContext, principal: str) -> tuple[str, ...]:
    """Who holds the place of a stream: its connection, and its caller where that is known."""
    peer = grpc_context.peer()
    found = (peer,) if peer.startswith("ip") else ()  # those of a Unix socket look alike
    return found if principal == context.ANONYMOUS else (*found, principal)


def own(method: str) -> bool:
    """Whether a method is gRPC's own: health and reflection have no contract."""
    return method.startswith(GRPC)


def read_headers(call: CallContext, headers: dict[str, str | bytes], ignored: list[str]) -> None:
    """What the caller's metadata says of its call. What cannot be read is `ignored`, as if absent.

    A bad idempotency key is not passed over: it is an error, see `identify`.
    """
    for name, value in headers.items():
        found: int | None = 0
        if name == DEPTH_KEY:
            found = read_depth(value)
            call.depth = found or 0
        elif name == ATTEMPT_KEY:
            found = read_attempt(value)
            call.attempt = found or 0
        elif name == context.PRIORITY_KEY:
            priority = found = context.read_priority(value)
            call.priority = priority or call.priority
        elif name == context.SHADOW[0]:
            call.shadow = True
        elif name == CONSISTENCY_KEY:
            call.seen = read_token(value)
            found = None if call.seen is None else 0
        elif name == FAULT_KEY and not readable(value):
            found = None
        if found is None:
            ignored.append(name)
