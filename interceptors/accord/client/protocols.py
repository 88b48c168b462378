"""What gRPC gives and takes, as far as both kinds of it are alike."""

from abc import ABCMeta
from collections.abc import Callable, Iterable
from functools import wraps
from typing import NamedTuple, Protocol, TypeVar, cast

import grpc

Req = TypeVar("Req")
Res = TypeVar("Res")
T = TypeVar("T")
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


def stands_for(base: type) -> Callable[[type[T]], type[T]]:
    """Decorator: have `isinstance` take a class for one of gRPC's abstract ones.

    Not by inheritance: types-grpcio says other things of those than gRPC keeps to.
    """
    assert isinstance(base, ABCMeta)  # which types-grpcio does not know
    return base.register


def replacing(theirs: M, make: Callable[..., object]) -> M:  # what it gives stands for gRPC's own
    """A channel's method as gRPC's own, `theirs`, which gives what `make` makes of what that gives.

    `make` is told the channel, the method, and what gRPC has made.
    """

    @wraps(theirs)
    def ours(channel: object, method: str, *args: object, **kwargs: object) -> object:  # as M has
        return make(channel, method, theirs(channel, method, *args, **kwargs))

    return cast("M", ours)  # it takes what M takes
