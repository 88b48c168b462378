"""How much of the edge one caller may have, and how much all of them.

A token bucket per route and caller: the user of a verified token, or the address where there is
none. An address of IPv6 counts as its network of 64 bits, which one caller has all of.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final

import grpc

from accord.edge.auth import Caller
from accord.edge.problem import EdgeError
from accord.edge.routes import Route
from accord.policies.rate_limit import RATE_LIMITED, RateLimiter, RatePolicy

_BUSY: Final = "the edge has as many requests at once as it takes"


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What one edge process takes on. Times are seconds, sizes bytes."""

    rate: RatePolicy = field(default=RatePolicy(100, 200))
    """Calls of one caller and route, where the contract states no rate."""
    requests: int = 1000
    """At work at once, streams not counted; what is beyond is refused with 503."""
    streams: int = 10_000
    """Open at once, all together."""
    streams_each: int = 2000
    """Open at once, of one user or address."""
    body: int = 1024 * 1024
    """Of a request: 413 beyond."""
    body_timeout: float = 10.0
    """For the whole body to arrive: 408 beyond."""
    headers: int = 32 * 1024
    """Of a request, all together: 431 beyond."""
    target: int = 8 * 1024
    """Path and query: 414 beyond."""
    timeout: float = 60.0
    """Of a call whose contract states none."""
    keepalive: float = 15.0
    """Between two signs of life in a stream."""
    write_timeout: float = 30.0
    """Within which the reader of a stream must take what is sent."""


class RateLimits:
    """The buckets of all routes. At most 10,000 callers each are remembered."""

    def __init__(
        self, routes: Iterable[Route], default: RatePolicy, clock: Callable[[], float]
    ) -> None:
        self._by_method = {
            route.method: RateLimiter(route.rate or default, clock=clock) for route in routes
        }

    def admit(self, route: Route, caller: Caller | None, scope: Mapping[str, Any]) -> None:
        """Take a token. Raises EdgeError: there is none, with the time when there will be one."""
        refused = self._by_method[route.method].admit(who(caller, scope))
        if refused is not None:
            code, wait = grpc.StatusCode.RESOURCE_EXHAUSTED, refused.retry_after
            text = "too many requests to this route"
            raise EdgeError(429, code, RATE_LIMITED, text, retry_after=wait)


class Places:
    """Room for so many at once, and for so many of each caller."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, who: str) -> Iterator[None]:
        """One of them, for as long as the block lasts. Raises EdgeError: there is none."""
        if self._taken.total() >= self._most or self._taken[who] >= self._each:
            code = grpc.StatusCode.UNAVAILABLE
            raise EdgeError(503, code, "OVERLOADED", _BUSY, retry_after=1.0)
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]


def who(caller: Caller | None, scope: Mapping[str, Any]) -> str:
    """Who sends a request: a user, or an address."""
    return address_of(scope) if caller is None else f"user {caller.subject}"


def address_of(scope: Mapping[str, Any]) -> str:
    """Whose bucket a request without a user takes from."""
    client = scope.get("client")
    host = str(client[0]) if client else ""
    if ":" not in host:
        return host
    try:
        return str(IPv6Address(int(IPv6Address(host.partition("%")[0])) >> 64 << 64))
    except ValueError:
        return host
