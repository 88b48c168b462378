"""Metrics on the OpenTelemetry API: names, units and bucket boundaries of gRPC's own plugins.

Until an application installs a MeterProvider nothing is recorded and nothing is kept. With one:

- durations and what repeating cost are recorded when they are known (gRFC A66 `grpc.client.*` and
  `grpc.server.*`, gRFC A96 `grpc.client.call.retries`, `.hedges`, `.retry_delay`), with attributes
  that are built once per method and status;
- so are the sizes of messages on the server, for a mesh that asks for them (`message_sizes`): two
  more histograms cost a small call as much as its span;
- everything else is a counter or a state that a policy keeps anyway. It is read when metrics are
  collected and costs a call nothing (`accord.*`, and the two `*.started`).

Not recorded: sizes on the client, which gRPC's interceptors do not see (the server's are the same
bytes), and transparent retries, which happen below them.

Labels are bounded: a method that no descriptor in this process describes is "other" (A66), and so
is whatever comes after the first `MAX_METHODS` methods and `MAX_TARGETS` targets. No label is taken
from a request.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from accord.contract.names import described
from accord.policies.types import Code

LATENCY: Final = (
    0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006,
    0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2,
    0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 2, 5, 10, 20, 50, 100,
)  # fmt: skip
"""Bucket boundaries in seconds (A66)."""

SIZE: Final = (
    0, 1024, 2048, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864, 268435456,
    1073741824, 4294967296,
)  # fmt: skip
"""Bucket boundaries in bytes (A66)."""

REPEATS: Final = (1, 2, 3, 4, 5)
"""Bucket boundaries of retries and hedges per call (A96)."""

MAX_METHODS: Final = 500
MAX_TARGETS: Final = 100
OTHER: Final = "other"

BATCH: Final = 32
"""Values that are recorded at once."""

_NO_SPAN: Final = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Not an empty context: the SDK would take the current one instead."""

_STATUSES: Final = frozenset(Code.__members__)
Labels = dict[str, str]


class _Meter:
    """Labels of a method, built once per status."""

    __slots__ = ("_instruments", "_statuses", "labels")

    def __init__(self, instruments: "Instruments", labels: Labels) -> None:
        self._instruments = instruments
        self._statuses: dict[str, Labels] = {}
        self.labels: Final = labels

    def _with(self, status: str) -> Labels:
        labels = self._statuses.get(status)
        if labels is None:
            labels = self._statuses[status] = {**self.labels, "grpc.status": status}
        return labels


class ClientMeter(_Meter):
    """Records the calls of one method to one target."""

    __slots__ = ("attempts",)

    def __init__(self, instruments: "Instruments", method: str, target: str) -> None:
        super().__init__(instruments, {"grpc.method": method, "grpc.target": target})
        self.attempts = 0
        """Attempts that were begun."""

    def attempt(self, status: str, seconds: float) -> None:
        """An attempt has ended."""
        found = self._instruments
        found.later(found.attempt_duration, seconds, self._with(status))

    def call(self, status: str, seconds: float, *, retries: int, hedges: int, delay: float) -> None:
        """A call has ended, after `delay` seconds in all in which no attempt was at work."""
        found = self._instruments
        found.later(found.call_duration, seconds, self._with(status))
        if retries:
            found.later(found.retries, retries, self.labels)
            found.later(found.retry_delay, delay, self.labels)
        if hedges:
            found.later(found.hedges, hedges, self.labels)


class ServerMeter(_Meter):
    """Records the calls of one method that is served here."""

    __slots__ = ("started",)

    def __init__(self, instruments: "Instruments", method: str) -> None:
        super().__init__(instruments, {"grpc.method": method})
        self.started = 0
        """Calls that have come."""

    def call(self, status: str, seconds: float, *, sent: int, received: int) -> None:
        """A call has ended; `sent` and `received` in bytes of messages."""
        found, labels = self._instruments, self._with(status)
        found.later(found.server_duration, seconds, labels)
        if _sizes:
            found.later(found.server_sent, sent, labels)
            found.later(found.server_received, received, labels)


class Instruments:
    """All instruments of a process, on one meter."""

    def __init__(self, meter: Meter) -> None:
        self._clients: dict[tuple[str, str], ClientMeter] = {}
        self._servers: dict[str, ServerMeter] = {}
        self._targets: set[str] = set()
        self._methods: set[str] = set()
        self._kept: deque[tuple[Histogram, float, Labels]] = deque()

        histogram = meter.create_histogram
        latency = partial(histogram, unit="s", explicit_bucket_boundaries_advisory=LATENCY)
        size = partial(histogram, unit="By", explicit_bucket_boundaries_advisory=SIZE)
        repeats = partial(histogram, explicit_bucket_boundaries_advisory=REPEATS)
        self.attempt_duration = latency(
            "grpc.client.attempt.duration", description="Time of one attempt, to its end."
        )
        self.call_duration = latency(
            "grpc.client.call.duration",
            description="Time of one call, attempts and waits included.",
        )
        self.retry_delay = latency(
            "grpc.client.call.retry_delay",
            description="Time of one call in which no attempt was at work.",
        )
        self.retries = repeats("grpc.client.call.retries", "{retry}", "Retries of a call, if any.")
        self.hedges = repeats("grpc.client.call.hedges", "{hedge}", "Hedges of one call, if any.")
        self.server_duration = latency(
            "grpc.server.call.duration", description="Time of one call, as the server sees it."
        )
        self.server_sent = size(
            "grpc.server.call.sent_total_compressed_message_size",
            description="Bytes of all responses of one call, before compression.",
        )
        self.server_received = size(
            "grpc.server.call.rcvd_total_compressed_message_size",
            description="Bytes of all requests of one call, after decompression.",
        )
        meter.create_observable_counter(
            "grpc.client.attempt.started",
            [self._attempts_started],
            "{attempt}",
            "Attempts begun, whether or not they have ended.",
        )
        meter.create_observable_counter(
            "grpc.server.call.started",
            [self._calls_started],
            "{call}",
            "Calls that have come, whether or not they have ended.",
        )
        for create in _more:
            create(meter)

    def later(self, histogram: Histogram, value: float, labels: Labels) -> None:
        """Record a value with those before and after it.

        One at a time, among all else that a call does, costs more than twice as much. Values are
        recorded at the latest when metrics are collected; they have no exemplars.
        """
        self._kept.append((histogram, value, labels))
        if len(self._kept) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Record what is kept. From any thread."""
        kept = self._kept
        while kept:
            try:
                histogram, value, labels = kept.popleft()
            except IndexError:  # another thread was faster
                return
            histogram.record(value, labels, _NO_SPAN)

    def client(self, target: str, method: str) -> ClientMeter:
        """The meter of a route; `method` as it travels."""
        found = self._clients.get((target, method))
        if found is None:
            name, where = self._method_label(method), target
            if target not in self._targets:
                if len(self._targets) < MAX_TARGETS:
                    self._targets.add(target)
                else:
                    where = OTHER
            key = (where, name) if OTHER in (where, name) else (target, method)
            found = self._clients.get(key)
            if found is None:
                found = self._clients[key] = ClientMeter(self, name, where)
        return found

    def server(self, method: str) -> ServerMeter:
        """The meter of a method that is served; `method` as it travels."""
        name = self._method_label(method)
        found = self._servers.get(name)
        if found is None:
            found = self._servers[name] = ServerMeter(self, name)
        return found

    def _method_label(self, method: str) -> str:
        name = method[1:]
        if name in self._methods:
            return name
        if len(self._methods) >= MAX_METHODS or not described(method):
            return OTHER
        self._methods.add(name)
        return name

    def _attempts_started(self, _: CallbackOptions) -> Iterator[Observation]:
        self.flush()  # callbacks come before histograms are read
        for meter in list(self._clients.values()):
            yield Observation(meter.attempts, meter.labels)

    def _calls_started(self, _: CallbackOptions) -> Iterator[Observation]:
        for meter in list(self._servers.values()):
            yield Observation(meter.started, meter.labels)


_more: list[Callable[[Meter], None]] = []
_instruments: Instruments | None = None
_sizes = False


def add_instruments(create: Callable[[Meter], None]) -> None:
    """Have more instruments made with those of this module, on the same meter."""
    _more.append(create)


def record_sizes() -> None:
    """Record the sizes of messages on the server from now on."""
    global _sizes
    _sizes = True


def instruments() -> Instruments | None:
    """What to record with; None until an application installs a MeterProvider."""
    global _instruments
    if _instruments is None and metrics._internal._METER_PROVIDER is not None:
        _instruments = Instruments(metrics.get_meter("accord"))
    return _instruments


def client_labels(target: str, method: str) -> Labels:
    """The labels of a route, once there are instruments; `method` as it travels."""
    assert _instruments is not None
    return _instruments.client(target, method).labels


def status(code: str) -> str:
    """The label of how a call ended: the name of a status code."""
    return code if code in _STATUSES else "INTERNAL"
