"""What the engine and a driver say to each other of a call, and what gRPC gives and takes."""

import logging
from abc import ABCMeta
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import grpc

from accord._log import log
from accord.policies.types import Code


@dataclass(frozen=True, slots=True)
class Refuse:
    """Make no attempt: the call ends with this status.

    `retry_after` is set by an open breaker: seconds until it admits a probe.
    """

    code: Code
    message: str
    reason: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Wait `delay` seconds, then ask `admit` for another attempt, which may resume a stream."""

    delay: float
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Raise:
    """Give the failure of the attempt to the caller.

    `exhausted`: it has been tried as often as it may be, here or below; the tiers above must not.
    `why` says what has stopped the retries.
    """

    exhausted: bool = False
    why: str = ""


RAISE: Final = Raise()
EXHAUSTED: Final = Raise(exhausted=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed.

    `reason` is that of its ErrorInfo; `pushback` (from `parse_pushback`) and `retry_info` are the
    seconds that it asks to wait; `transport` says that the connection broke below the status,
    `started` that the caller has seen a message of the stream, `own` that no server is to blame,
    `lost` that it ended with its connection, as all calls on it did; `handshake` are the details of
    a status that tells of a failed handshake, or would over TLS.
    """

    code: Code
    reason: str = ""
    pushback: float | None = None
    retry_info: float | None = None
    transport: bool = False
    started: bool = False
    own: bool = False
    lost: bool = False
    handshake: str = ""


class Sent(Protocol):
    """An attempt, as far as an observer needs to know it."""

    started: float
    """On the engine's clock."""


Req = TypeVar("Req")
Res = TypeVar("Res")
T = TypeVar("T")
Options = Sequence[tuple[str, str | int]]
"""Arguments of gRPC's channels and servers, by name."""

P = ParamSpec("P")
M = TypeVar("M", bound=Callable[..., object])  # any method
E = TypeVar("E", bound=grpc.RpcError)
"""The error of one kind of gRPC."""
Pair = tuple[str, str | bytes]
Pairs = tuple[Pair, ...]
Metadata = Iterable[Pair]


class Details(NamedTuple):
    """What gRPC needs to know of a call or an attempt, as its own interceptors have it."""

    method: str
    timeout: float | None = None
    metadata: Metadata | None = None
    credentials: grpc.CallCredentials | None = None
    wait_for_ready: bool | None = None
    compression: grpc.Compression | None = None


Given = Callable[Concatenate[str, P], Details]
"""Makes `Details` of a method and what else a caller gives beside the request."""


class CallDetails(Protocol):
    """What a caller says of a call beside its request: `Details`, or those of gRPC's own."""

    @property
    def method(self) -> str:
        """As it travels, "/pkg.Service/Method"; bytes in an interceptor of `grpc.aio`."""

    @property
    def timeout(self) -> float | None:
        """Seconds; None: the contract's."""

    @property
    def metadata(self) -> Metadata | None:
        """The caller's own."""

    @property
    def credentials(self) -> grpc.CallCredentials | None:
        """Those of this call."""

    @property
    def wait_for_ready(self) -> bool | None:
        """Whether to wait for a connection."""


# What a callback returns is nothing to anybody.
def tell(callbacks: Iterable[Callable[P, object]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call back; what a callback raises is logged, and never replaces the answer of its call."""
    for callback in callbacks:
        try:
            callback(*args, **kwargs)
        except Exception as error:
            log(logging.ERROR, "a callback of a call failed", error=error)


def stands_for(base: type) -> Callable[[type[T]], type[T]]:
    """Decorator: have `isinstance` take a class for one of gRPC's abstract ones.

    Not by inheritance: types-grpcio says other things of those than gRPC keeps to.
    """
    assert isinstance(base, ABCMeta)  # which types-grpcio does not know
    return base.register


def replacing(theirs: M, make: Callable[..., object]) -> M:  # what it gives stands for gRPC's own
    """A channel's method as gRPC's own, `theirs`, which gives what `make` makes of what that gives.

    `make` is told the channel, the method, what gRPC has made, and a `Given`.
    """

    @wraps(theirs)
    def ours(channel: object, method: str, *args: object, **kwargs: object) -> object:  # as M has
        return make(channel, method, theirs(channel, method, *args, **kwargs), Details)

    return cast("M", ours)  # it takes what M takes
