"""State that is read when metrics are collected: breakers, budgets, hedges, caches, limits.

The policies keep it anyway, so it costs a call nothing.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from accord.client.method_state import MethodStates
from accord.contract.names import described
from accord.policies.breaker import State
from accord.server.state import ServerState
from accord.telemetry import metrics
from accord.telemetry.metrics import OTHER, client_labels

if TYPE_CHECKING:
    from accord.identity import Identity
    from accord.xds.client import XdsClient

Read = Callable[["Watched"], Iterable[Observation]]


class Watched:
    """What one mesh lets be read: its clients' methods, its servers' control, who it is."""

    __slots__ = ("__weakref__", "control", "identity", "methods", "xds")

    def __init__(
        self, methods: MethodStates, control: ServerState, identity: "Identity | None"
    ) -> None:
        self.methods = methods
        self.control = control
        self.identity = identity
        self.xds: XdsClient | None = None  # once it has a channel with an identity


_watched: WeakSet[Watched] = WeakSet()


def watch(
    methods: MethodStates,
    control: ServerState,
    identity: "Identity | None" = None,
    *,
    sizes: bool = False,
) -> Watched:
    """Let a mesh be read for as long as the result is kept; `sizes`: record those of messages.

    One mesh per process: the labels do not tell two apart.
    """
    if sizes:
        metrics.record_sizes()
    watched = Watched(methods, control, identity)
    _watched.add(watched)
    metrics.instruments()
    return watched


def _create(meter: Meter) -> None:
    for name, unit, description, read in _COUNTERS:
        meter.create_observable_counter(f"accord.{name}", [_callback(read)], unit, description)
    for name, unit, description, read in _GAUGES:
        meter.create_observable_gauge(f"accord.{name}", [_callback(read)], unit, description)


def _callback(read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for watched in list(_watched):
            yield from read(watched)

    return observe


def _routes(field: str) -> Read:
    """A number of each route that has it, "fallbacks", or of a part of each, "hedge.sent"."""
    part, _, name = field.rpartition(".")

    def read(watched: Watched) -> Iterator[Observation]:
        for route in watched.methods.snapshot().routes:
            value = getattr(getattr(route, part) if part else route, name, None)
            if value is not None:
                yield Observation(value, client_labels(route.target, route.method))

    return read


def _targets(field: str) -> Read:
    """A number of each target's budget or cache: "budget.refused"."""

    def read(watched: Watched) -> Iterator[Observation]:
        for target in watched.methods.snapshot().targets:
            yield Observation(attrgetter(field)(target), {"grpc.target": target.target})

    return read


def _limiter(field: str) -> Read:
    def read(watched: Watched) -> Iterator[Observation]:
        value = getattr(watched.control.limiter.snapshot(), field)
        yield Observation(int(value) if isinstance(value, bool) else value)  # OTLP has no truths

    return read


def _method_limits(watched: Watched) -> Iterator[Observation]:
    for method, line in list(watched.control.lines.items()):
        if line.limit < math.inf:
            labels = {"grpc.method": method[1:] if described(method) else OTHER}
            yield Observation(int(line.limit), labels)


def _breaker_states(watched: Watched) -> Iterator[Observation]:
    for route in watched.methods.snapshot().routes:
        if route.breaker is not None:
            labels = client_labels(route.target, route.method)
            for state in State:
                yield Observation(
                    int(route.breaker.state is state),
                    {**labels, "accord.breaker.state": state.value},
                )


def _cache_requests(watched: Watched) -> Iterator[Observation]:
    for route in watched.methods.snapshot().routes:
        if route.cache_hits or route.cache_misses:
            labels = client_labels(route.target, route.method)
            yield Observation(route.cache_hits, {**labels, "accord.cache.result": "hit"})
            yield Observation(route.cache_misses, {**labels, "accord.cache.result": "miss"})


def _decisions(watched: Watched) -> Iterator[Observation]:
    counts = watched.control.counts
    for method in sorted(counts.methods()):
        labels = {"grpc.method": method[1:] if described(method) else OTHER}
        for decision, count in counts.of(method).items():
            yield Observation(count, {**labels, "accord.decision": decision})


def _overrides(watched: Watched) -> Iterator[Observation]:
    overrides = watched.control.overrides
    yield Observation(len(overrides.methods()), {"accord.override.state": "in_force"})
    yield Observation(len(overrides.refused()), {"accord.override.state": "refused"})


def _identity(value: Callable[["Identity"], float]) -> Read:
    def read(watched: Watched) -> Iterator[Observation]:
        if watched.identity is not None:
            yield Observation(value(watched.identity))

    return read


def _routing(watched: Watched) -> Iterator[Observation]:
    if watched.xds is not None:
        yield Observation(int(bool(watched.xds.problems())))


_COUNTERS: Final[tuple[tuple[str, str, str, Read], ...]] = (
    ("client.breaker.opened", "{time}", "Times a breaker has opened.", _routes("breaker.opened")),
    ("client.breaker.refused", "{attempt}", "Attempts not made: open.", _routes("breaker.refused")),
    ("client.budget.refused", "{attempt}", "Repeats not paid for.", _targets("budget.refused")),
    ("client.hedge.sent", "{attempt}", "Backup requests.", _routes("hedge.sent")),
    ("client.hedge.refused", "{attempt}", "Backups not paid for.", _routes("hedge.refused")),
    ("client.fallbacks", "{call}", "Calls answered by a fallback.", _routes("fallbacks")),
    ("client.cache.requests", "{call}", "Look-ups of cached methods.", _cache_requests),
    ("server.shed", "{call}", "Calls the limiter refused.", _limiter("refused")),
    ("decisions", "{decision}", "What policies decided, and would have.", _decisions),
)

_GAUGES: Final[tuple[tuple[str, str, str, Read], ...]] = (
    ("client.breaker.state", "1", "1 for the state a breaker is in.", _breaker_states),
    ("client.budget.balance", "{attempt}", "Repeats granted now.", _targets("budget.balance")),
    ("client.hedge.delay", "s", "Wait before a backup request.", _routes("hedge.delay")),
    ("client.cache.entries", "{answer}", "Answers kept.", _targets("cache.entries")),
    ("server.limit", "{call}", "Calls that may be at work, if limited.", _method_limits),
    ("server.in_flight", "{call}", "Calls at work.", _limiter("in_flight")),
    ("server.queued", "{call}", "Calls waiting to begin.", _limiter("queued")),
    ("server.delay", "s", "Wait of a call before it begins.", _limiter("delay")),
    ("server.overloaded", "1", "1 while calls wait for too long.", _limiter("overloaded")),
    ("overrides", "{method}", "Policies in force, or refused.", _overrides),
    (
        "identity.expiry",
        "s",
        "Until the certificate in use ends.",
        _identity(lambda found: found.bundle.not_after - found.clock()),
    ),
    (
        "identity.problem",
        "1",
        "1 while its files are not used.",
        _identity(lambda found: int(found.problem is not None)),
    ),
    ("routes.problem", "1", "1 while routes are not obeyed, or nobody has them.", _routing),
)

metrics.add_instruments(_create)
