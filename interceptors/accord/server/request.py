"""A call that has come in: what the servers share, whichever gRPC they speak."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from opentelemetry import context as otel

from accord import context, errors
from accord.context import CallContext, Idempotency
from accord.contract.policy import ContractError, Key, MethodPolicy
from accord.interfaces import FieldViolation, IdempotencyStore, Validator
from accord.policies import idempotency
from accord.policies.depth import DEPTH_KEY, read_depth
from accord.policies.fault_injection import FAULT_KEY, readable
from accord.policies.retry import ATTEMPT_KEY, read_attempt
from accord.server.state import Control
from accord.telemetry.propagation import HEADERS, incoming

IGNORED: Final = "metadata.ignored"
"""Count of headers that could not be read; each is followed by its name."""

WORKERS: Final = 320
"""Threads for handlers: more than the largest limit and its queue, so that nothing waits unseen.

They are started when they are needed, and idle ones are used again.
"""

SILENT: Final = (None, 0, grpc.StatusCode.OK)
"""Status codes of a context whose handler has set no error."""

_READ: Final = HEADERS | {
    DEPTH_KEY,
    FAULT_KEY,
    ATTEMPT_KEY,
    context.PRIORITY_KEY,
    context.IDEMPOTENCY_KEY,
}
_READERS: Final[tuple[tuple[str, Callable[[Any], Any]], ...]] = (
    (DEPTH_KEY, read_depth),
    (ATTEMPT_KEY, read_attempt),
    (context.PRIORITY_KEY, context.read_priority),
    (FAULT_KEY, lambda value: value if readable(value) else None),
)
"""None for what cannot be read. A bad idempotency key is not passed over: it is an error."""
_SPIFFE: Final = "peer_spiffe_id"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pipeline of one process works with."""

    service: str
    clock: Callable[[], float]
    control: Control
    validator: Validator | None = None
    idempotency: IdempotencyStore | None = None
    translate: errors.Translate | None = None
    authorize: bool = False
    """Whether every caller needs a verified identity. One that has it is checked in any case."""


class Peers:
    """Whether the callers of a server may have certificates.

    Where they cannot, nobody is asked for one: it costs as much as half of all other checks.
    """

    __slots__ = ("secure",)

    def __init__(self, *, secure: bool = True) -> None:
        self.secure = secure

    def principal(self, grpc_context: Any) -> str:
        """Who calls, by certificate and nothing else."""
        if not self.secure:
            return context.ANONYMOUS
        found = grpc_context.auth_context().get(_SPIFFE)
        return found[0].decode(errors="replace") if found else context.ANONYMOUS


class Entry:
    """Turns what gRPC knows of a call of one method into a `CallContext`."""

    __slots__ = ("_initial", "_method", "_peers", "_settings")

    def __init__(
        self, settings: Settings, policy: MethodPolicy, peers: Peers | None = None
    ) -> None:
        self._settings = settings
        self._method = policy.method
        self._initial = policy
        self._peers = peers or Peers()

    def enter(
        self, grpc_context: Any, headers: dict[str, Any], remaining: float | None
    ) -> CallContext:
        """The call, which is the current one from now on.

        `headers` as from `read_headers`; `remaining`: seconds that the caller's deadline leaves.
        """
        settings, policy = self._settings, self._policy()
        left = policy.timeout
        if left is None or (remaining is not None and remaining < left):
            left = remaining
        call = CallContext(
            settings.service,
            policy,
            None if left is None else settings.clock() + left,
            settings.clock,
            self._peers.principal(grpc_context),
            priority=policy.limit.priority,
        )
        if headers:
            call.depth = headers.get(DEPTH_KEY) or 0
            call.priority = headers.get(context.PRIORITY_KEY) or call.priority
            call.attempt = headers.get(ATTEMPT_KEY) or 0
        context.enter(call)
        return call

    def _policy(self) -> MethodPolicy:
        """What holds now: live policy may have changed it."""
        try:
            return self._settings.control.overrides.policy(self._method)
        except ContractError:
            return self._initial

    def identify(self, active: "Active", request: Any) -> Idempotency | None:
        """How a repeat of this call is recognised. Raises InvalidArgument for a bad key."""
        needed = active.call.policy.key
        if needed is Key.NONE:
            return None
        key = active.headers.get(context.IDEMPOTENCY_KEY)
        if key is None:
            if needed is Key.REQUIRED:
                raise _bad_key("is required", "IDEMPOTENCY_KEY_REQUIRED")
            return None
        problem = idempotency.key_problem(key)
        if problem is not None:
            raise _bad_key(problem, "IDEMPOTENCY_KEY_INVALID")
        seen = b"" if request is None else idempotency.fingerprint(self._method, request)
        return Idempotency(idempotency.Scope(active.call.principal, self._method, key), seen)


class Active:
    """A call on its way through the pipeline."""

    __slots__ = ("begun", "call", "headers", "raw")

    def __init__(self, call: CallContext, headers: dict[str, Any]) -> None:
        self.call = call
        self.headers = headers
        self.begun = False
        self.raw: Any = None
        """The one request, as it came; None for a stream of them."""

    def begin(self) -> None:
        """Its handler is next. Raises DeadlineExceeded: it may have waited for too long."""
        call = self.call
        if call.deadline is not None and call.clock() >= call.deadline:
            raise errors.DeadlineExceeded("the deadline passed before the work was begun")
        self.begun = True


def own(method: str) -> bool:
    """Whether a method is gRPC's own: health and reflection have no contract."""
    return method.startswith("/grpc.")


def read_headers(grpc_context: Any) -> tuple[dict[str, Any], otel.Context, list[str]]:
    """The metadata that the library reads, its trace, and the names of what cannot be read.

    Of several values the last one counts. What cannot be read counts as absent.
    """
    metadata = grpc_context.invocation_metadata() or ()
    headers: dict[str, Any] = {key: value for key, value in metadata if key in _READ}
    trace, ignored = incoming(headers)
    for name, read in _READERS:
        if name in headers:
            found = headers[name] = read(headers[name])
            if found is None:
                ignored.append(name)
    return headers, trace, ignored


def _bad_key(problem: str, reason: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        FieldViolation(f"metadata.{context.IDEMPOTENCY_KEY}", problem), reason=reason
    )


def grpc_code(number: int) -> grpc.StatusCode:
    """A status code as gRPC has it; INTERNAL for a number that is none."""
    return errors.CODES.get(number, grpc.StatusCode.INTERNAL)


def sendable(trailers: Any) -> tuple[tuple[str, str | bytes], ...]:
    """Trailers as they are. Raises TypeError for a wrong type: gRPC would never end the call."""
    found = tuple(trailers or ())
    for key, value in found:
        if not isinstance(key, str) or not isinstance(
            value, bytes if key.endswith("-bin") else (str, bytes)
        ):
            raise TypeError(f"{key!r} cannot be a trailer with a value of {type(value)}")
    return found


def known(code: Any) -> Any:
    """`code`, but INTERNAL instead of UNKNOWN, which tells a caller nothing."""
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNKNOWN.value[0]):
        return grpc.StatusCode.INTERNAL
    return code
