"""The call being handled: what its nested calls inherit, and what the handler may ask.

Context follows asyncio tasks and `asyncio.to_thread` by itself. Code that runs in other threads is
wrapped with `carry`; work that must outlive its request is started inside `detach`.
"""

import contextvars
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from random import getrandbits
from time import monotonic
from typing import Final, ParamSpec, TypeVar

from accord.contract.policy_types import MethodPolicy
from accord.policies.call_depth import DEPTH_KEY, nested
from accord.policies.consistency import CONSISTENCY_KEY, Token, read_token
from accord.policies.idempotency import Scope
from accord.policies.types import Priority

P = ParamSpec("P")
T = TypeVar("T")

ANONYMOUS: Final = "anonymous"
"""Principal of a caller without a certificate."""

PRIORITY_KEY: Final = "accord-priority"
IDEMPOTENCY_KEY: Final = "idempotency-key"
SHADOW: Final = ("accord-shadow", "1")
"""Metadata of a copy of a call, and of the calls that it leads to: these are not copied again."""
USER_KEY: Final = "accord-user"
"""The token of the end user for whom a call is made; see `accord.identity.users`."""
CACHE_TTL_KEY: Final = "accord-cache-ttl"
"""Trailer: whole seconds for which this one answer may be kept, if less than the contract's."""
RESERVED_PREFIX: Final = "accord-"
"""Metadata under this prefix belongs to the library: what a caller sets there is dropped."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """How a repeat of the call being handled is recognised.

    `fingerprint` is empty for a call whose requests are streamed: its handler derives a scope per
    item (`scope.item(index)`) and a fingerprint per message (`accord.fingerprint`).
    """

    scope: Scope
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class User:
    """The end user for whom a call is made, verified; never who calls: that is the principal."""

    id: str
    """Such as the id of a customer."""
    roles: frozenset[str]
    issuer: str
    """SPIFFE id of who says so."""
    token: str = field(repr=False)
    """As it travels on."""


@dataclass(slots=True)
class CallContext:
    """One call being handled by this process."""

    service: str
    """Name of the mesh, e.g. "orders"."""
    policy: MethodPolicy
    deadline: float | None
    """Absolute, on `clock`; None if the call has none."""
    clock: Callable[[], float]
    principal: str = ANONYMOUS
    idempotency: Idempotency | None = None
    depth: int = 0
    """Synchronous hops between the edge and this call."""
    priority: Priority = Priority.DEFAULT
    attempt: int = 0
    """Which attempt of its caller this is, from 0. A tier below a retry makes one attempt only."""
    seen: Token | None = None
    """What its caller has seen, and so must be shown, or a later state of it."""
    user: User | None = None
    """For whom it is made; None: for nobody but its caller, or nobody can tell."""
    shadow: bool = False
    """Whether it is a copy of a call, or is made by one: nobody waits for its answer."""
    _trace: tuple[int, int] | None = None

    def trace(self) -> tuple[int, int]:
        """Trace and span id of a call that came without a trace, where no SDK makes spans.

        They are drawn when first asked for: most calls log nothing and send nothing on.
        """
        if self._trace is None:
            # "or 1": an id of zero is invalid, however unlikely it is.
            self._trace = (getrandbits(128) or 1, getrandbits(64) or 1)
        return self._trace

    @property
    def actor(self) -> str:
        """Who acts: the principal, and the user that it acts for: "spiffe://x/edge for 17"."""
        return self.principal if self.user is None else f"{self.principal} for {self.user.id}"

    @property
    def method(self) -> str:
        """Full method name, "/pkg.Service/Method"."""
        return self.policy.method

    def remaining(self) -> float | None:
        """Seconds left, not below 0, or None if there is no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock())


_current: contextvars.ContextVar[CallContext | None] = contextvars.ContextVar(
    "accord_call", default=None
)


_ends: contextvars.ContextVar[float | None] = contextvars.ContextVar("accord_ends", default=None)
"""When `deadline` ends outside of a handler, on the clock of `time.monotonic`."""


def current() -> CallContext | None:
    """The call being handled, or None outside of a handler."""
    return _current.get()


enter: Final = _current.set
"""Makes a call the current one for the rest of this task (a server task handles one call)."""


def carry(fn: Callable[P, T]) -> Callable[P, T]:
    """`fn`, to be called in another thread as if it were called here."""
    context = contextvars.copy_context()

    @wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be entered once at a time; a copy per call can be used by many threads.
        return context.copy().run(fn, *args, **kwargs)

    return carried


@contextmanager
def detach() -> Iterator[None]:
    """Work started inside outlives the request: it inherits no deadline and no idempotency key.

    It is nobody's attempt either: its own calls may be retried. Nor is it the user's any more.
    """
    call = _current.get()
    if call is not None:
        call.trace()  # goes with it
        call = replace(call, deadline=None, idempotency=None, attempt=0, user=None)
    with _entered(call, None):
        yield


@contextmanager
def without_user() -> Iterator[None]:
    """What is done inside is nobody's but this process's: no token of an end user travels on."""
    call = _current.get()
    with _entered(None if call is None else replace(call, user=None), _ends.get()):
        yield


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Calls made inside, and those that they make, end `seconds` from now at the latest.

    For the edge of the mesh, such as an HTTP request or a job; inside a handler it shortens what
    the handler has. Scopes nest: the one that ends first wins. It ends calls and nothing else.

    Raises ValueError if `seconds` is not a number.
    """
    if seconds != seconds:
        raise ValueError("a deadline is not a number")
    call, ends = _current.get(), _ends.get()
    if call is None:
        ends = min(monotonic() + seconds, math.inf if ends is None else ends)
    else:
        left = call.remaining()
        left = seconds if left is None else min(seconds, left)
        call = replace(call, deadline=call.clock() + left)
    with _entered(call, ends):
        yield


@contextmanager
def _entered(call: CallContext | None, ends: float | None) -> Iterator[None]:
    tokens = _current.set(call), _ends.set(ends)
    try:
        yield
    finally:
        _current.reset(tokens[0])
        _ends.reset(tokens[1])


def scope_left() -> float | None:
    """Seconds that `deadline` leaves outside of a handler, below 0 when over; None: no bound."""
    ends = _ends.get()
    return None if ends is None else ends - monotonic()


def idempotency_key(key: str) -> tuple[tuple[str, str], ...]:
    """Metadata for a call with this idempotency key: `stub.Charge(r, metadata=...)`.

    A key is never inherited: it is given, or derived from a business id and a step.
    """
    return ((IDEMPOTENCY_KEY, key),)


def shows(of: str, position: int) -> tuple[tuple[str, str], ...]:
    """Trailers of an answer that shows, or has made, the state `position` of a thing.

    For `context.set_trailing_metadata`. `of` names the thing the same in all services, such as
    "orders/" and an id. Callers that have seen the state are shown no older answer from a cache.

    Raises ValueError for a name that cannot travel.
    """
    token = Token(of, position)
    if read_token(str(token)) != token or not (of.isascii() and of.isprintable()):
        raise ValueError(f"{token} is no consistency token")
    return ((CONSISTENCY_KEY, str(token)),)


def cache_for(seconds: int) -> tuple[tuple[str, str], ...]:
    """Trailers of an answer that callers may keep for so long at most; 0: not at all.

    For `context.set_trailing_metadata`. It shortens what the contract allows, and cannot extend it.
    """
    return ((CACHE_TTL_KEY, str(max(0, seconds))),)


def read_priority(value: str | bytes) -> Priority | None:
    """The priority that a caller claims; None for what is not the name of one."""
    return Priority.__members__.get(value) if isinstance(value, str) else None


def outgoing(call: CallContext | None, user: User | None = None) -> Iterable[tuple[str, str]]:
    """What travels from the call being handled to the calls it makes, trace excluded.

    `user`: for whom they are made, if their caller has not said so by itself.
    """
    if call is None:
        return ()
    found: tuple[tuple[str, str], ...] = ((DEPTH_KEY, str(nested(call.depth))),)
    if call.priority is not Priority.DEFAULT:
        found = (*found, (PRIORITY_KEY, call.priority.name))
    if call.shadow:
        found = (*found, SHADOW)
    return found if user is None else (*found, (USER_KEY, user.token))
