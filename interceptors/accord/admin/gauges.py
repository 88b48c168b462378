"""State that is read when metrics are collected: breakers, budgets, hedges, caches, limits.

The policies keep it anyway, so it costs a call nothing.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from accord.client.method_state import MethodStates
from accord.policies.breaker import State
from accord.server.state import ServerState
from accord.telemetry import metrics
from accord.telemetry.metrics import OTHER, client_labels

Read = Callable[["Watched"], Iterable[Observation]]


class Watched:
    """What one mesh lets be read: its clients' methods and its servers' control."""

    __slots__ = ("__weakref__", "control", "methods")

    def __init__(self, methods: MethodStates, control: ServerState) -> None:
        self.methods = methods
        self.control = control


_watched: WeakSet[Watched] = WeakSet()


def watch(methods: MethodStates, control: ServerState, *, sizes: bool = False) -> Watched:
    """Let a mesh be read for as long as the result is kept; `sizes`: record those of messages.

    One mesh per process: the labels do not tell two apart.
    """
    if sizes:
        metrics.record_sizes()
    watched = Watched(methods, control)
    _watched.add(watched)
    metrics.instruments()
    return watched


def _create(meter: Meter) -> None:
    for name, unit, description, read in _COUNTERS:
        meter.create_observable_counter(name, [_callback(read)], unit, description)
    for name, unit, description, read in _GAUGES:
        meter.create_observable_gauge(name, [_callback(read)], unit, description)


def _callback(read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for watched in list(_watched):
            yield from read(watched)

    return observe


def _of_routes(part: str, field: str) -> Read:
    """A number of each route that has it; `part` is "breaker" or "hedge"."""

    def read(watched: Watched) -> Iterator[Observation]:
        for route in watched.methods.snapshot().routes:
            value = getattr(getattr(route, part), field, None)
            if value is not None:
                yield Observation(value, client_labels(route.target, route.method))

    return read


def _of_targets(part: str, field: str) -> Read:
    def read(watched: Watched) -> Iterator[Observation]:
        for target in watched.methods.snapshot().targets:
            yield Observation(getattr(getattr(target, part), field), {"grpc.target": target.target})

    return read


def _of_limiter(field: str) -> Read:
    def read(watched: Watched) -> Iterator[Observation]:
        value = getattr(watched.control.limiter.snapshot(), field)
        yield Observation(int(value) if isinstance(value, bool) else value)  # OTLP has no truths

    return read


def _method_limits(watched: Watched) -> Iterator[Observation]:
    for method, line in list(watched.control.lines.items()):
        if line.limit < math.inf:
            labels = {"grpc.method": method[1:] if metrics.described(method) else OTHER}
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


def _fallbacks(watched: Watched) -> Iterator[Observation]:
    for route in watched.methods.snapshot().routes:
        yield Observation(route.fallbacks, client_labels(route.target, route.method))


def _cache_requests(watched: Watched) -> Iterator[Observation]:
    for route in watched.methods.snapshot().routes:
        if route.cache_hits or route.cache_misses:
            labels = client_labels(route.target, route.method)
            yield Observation(route.cache_hits, {**labels, "accord.cache.result": "hit"})
            yield Observation(route.cache_misses, {**labels, "accord.cache.result": "miss"})


def _decisions(watched: Watched) -> Iterator[Observation]:
    counts = watched.control.counts
    for method in sorted(counts.methods()):
        labels = {"grpc.method": method[1:] if metrics.described(method) else OTHER}
        for decision, count in counts.of(method).items():
            yield Observation(count, {**labels, "accord.decision": decision})


def _overrides(watched: Watched) -> Iterator[Observation]:
    overrides = watched.control.overrides
    yield Observation(len(overrides.methods()), {"accord.override.state": "in_force"})
    yield Observation(len(overrides.refused()), {"accord.override.state": "refused"})


_COUNTERS: Final[tuple[tuple[str, str, str, Read], ...]] = (
    (
        "accord.client.breaker.opened",
        "{time}",
        "Times a breaker has opened.",
        _of_routes("breaker", "opened"),
    ),
    (
        "accord.client.breaker.refused",
        "{attempt}",
        "Attempts not made: open.",
        _of_routes("breaker", "refused"),
    ),
    (
        "accord.client.budget.refused",
        "{attempt}",
        "Repeats not paid for.",
        _of_targets("budget", "refused"),
    ),
    ("accord.client.hedge.sent", "{attempt}", "Backup requests.", _of_routes("hedge", "sent")),
    (
        "accord.client.hedge.refused",
        "{attempt}",
        "Backups not paid for.",
        _of_routes("hedge", "refused"),
    ),
    ("accord.client.fallbacks", "{call}", "Calls answered by a fallback.", _fallbacks),
    ("accord.client.cache.requests", "{call}", "Look-ups of cached methods.", _cache_requests),
    ("accord.server.shed", "{call}", "Calls the limiter refused.", _of_limiter("refused")),
    ("accord.decisions", "{decision}", "What policies decided, and would have.", _decisions),
)

_GAUGES: Final[tuple[tuple[str, str, str, Read], ...]] = (
    ("accord.client.breaker.state", "1", "1 for the state a breaker is in.", _breaker_states),
    (
        "accord.client.budget.balance",
        "{attempt}",
        "Repeats granted now.",
        _of_targets("budget", "balance"),
    ),
    (
        "accord.client.hedge.delay",
        "s",
        "Wait before a backup request.",
        _of_routes("hedge", "delay"),
    ),
    ("accord.client.cache.entries", "{answer}", "Answers kept.", _of_targets("cache", "entries")),
    ("accord.server.limit", "{call}", "Calls that may be at work, if limited.", _method_limits),
    ("accord.server.in_flight", "{call}", "Calls at work.", _of_limiter("in_flight")),
    ("accord.server.queued", "{call}", "Calls waiting to begin.", _of_limiter("queued")),
    ("accord.server.delay", "s", "Wait of a call before it begins.", _of_limiter("delay")),
    (
        "accord.server.overloaded",
        "1",
        "1 while calls wait for too long.",
        _of_limiter("overloaded"),
    ),
    ("accord.overrides", "{method}", "Policies in force, or refused.", _overrides),
)

metrics.add_instruments(_create)
