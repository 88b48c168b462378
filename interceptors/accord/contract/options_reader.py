"""Reads a method's options: merged with its service's defaults, and checked.

Field by field, and a message field is replaced whole. What is absent is off. A policy that
contradicts itself raises `ContractError`, which names file, method and field.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2, duration_pb2
from google.protobuf.message import Message

from accord.contract.edge import read_edge, read_rate
from accord.contract.merging import merge_options
from accord.contract.names import METHOD, leads_to_field, meant
from accord.contract.policy_types import (
    CompensationPolicy,
    ContractError,
    FloorPolicy,
    Key,
    LimitPolicy,
    MethodPolicy,
    ResumePolicy,
    SagaPolicy,
    StreamPolicy,
)
from accord.policies.breaker import BreakerPolicy
from accord.policies.cache import CachePolicy
from accord.policies.hedge import HedgePolicy
from accord.policies.retry import RetryPolicy
from accord.policies.types import Code, Priority
from accord.v1 import edge_pb2, policy_pb2

_MIN_TIMEOUT: Final = 0.001
_MAX_TIMEOUT: Final = 3600.0
_MAX_DURATION: Final = 315_576_000_000  # google.protobuf.Duration's own, in seconds
_MAX_STREAM: Final = 86_400.0
_MAX_ATTEMPTS: Final = 5
_MAX_DEPTH: Final = 8
_PURE: Final = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
_REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """A method's options as they are written, and what they come to."""

    written: policy_pb2.MethodPolicy
    """The method's own options merged with the defaults of its service, right or wrong."""
    policy: MethodPolicy
    """What they come to; a field that is wrong counts as not written."""
    problems: tuple[ContractError, ...]
    """What is wrong, at most one for each field of the policy."""


def read_method(method: pb.MethodDescriptor, *, routed: bool = True) -> Reading:
    """Read a method of any descriptor pool, valid or not, with its route if it may have one.

    Nothing is kept.
    """
    reader = Reader(method)
    if not routed:
        reader.leave_out("edge")
    written = policy_pb2.MethodPolicy()
    written.CopyFrom(reader._raw)
    problems: list[ContractError] = []
    while True:
        try:
            return Reading(written, reader.policy(), tuple(problems))
        except ContractError as problem:
            if any(problem.field == known.field for known in problems):
                raise
            problems.append(problem)
            reader.leave_out(problem.field.partition(".")[0])


class Reader:
    """Reads one method's options; every refusal names file, method and field."""

    def __init__(
        self,
        method: pb.MethodDescriptor,
        live: policy_pb2.MethodPolicy | None = None,
        source: str = "",
    ) -> None:
        service = method.containing_service
        self._found = method
        self._streams = method.client_streaming or method.server_streaming
        self._live = live
        self._file = source or service.file.name
        self._full_name = f"{service.full_name}/{method.name}"
        options, service_options = method.GetOptions(), service.GetOptions()
        self._level = options.idempotency_level
        self._own = options.Extensions[policy_pb2.policy]
        self._declared = options.HasExtension(policy_pb2.policy) or service_options.HasExtension(
            policy_pb2.service
        )
        self._edge = (
            options.Extensions[edge_pb2.edge] if options.HasExtension(edge_pb2.edge) else None
        )
        self._raw = policy_pb2.MethodPolicy()
        self._raw.CopyFrom(service_options.Extensions[policy_pb2.service].defaults)
        for descriptor, _ in self._own.ListFields():
            self._raw.ClearField(descriptor.name)  # type: ignore[arg-type]
        self._raw.MergeFrom(self._own)
        # A default of the service is meant for its unary RPCs: a stream has a lifetime.
        self._own_timeout = self._own.HasField("timeout")
        if live is not None:
            self._own_timeout |= live.HasField("timeout")
            merge_options(live, self._raw)

    def leave_out(self, option: str) -> None:
        """Read it as if the option were not written."""
        if option == "edge":
            self._edge = None
        else:
            self._raw.ClearField(option)  # type: ignore[arg-type]

    def policy(self) -> MethodPolicy:
        """The method's policy. Raises ContractError."""
        raw = self._raw
        self._check_arity()
        timeout = self._stated("timeout", self._timeout)
        retry = self._stated("retry", self._retry)
        policy = MethodPolicy(
            method=f"/{self._full_name}",
            declared=self._declared,
            client_streaming=self._found.client_streaming,
            server_streaming=self._found.server_streaming,
            safe=self._level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
            timeout=timeout,
            attempt_timeout=self._attempt_timeout(timeout),
            retry=retry,
            hedge=self._stated("hedge", self._hedge),
            breaker=self._stated("breaker", self._breaker),
            limit=self._stated("limit", self._limit),
            allow=self._names("allow", raw.allow),
            calls=self._calls(),
            cache=self._stated("cache", self._cache),
            compensation=self._stated("compensation", self._compensation),
            saga=self._stated("saga", self._saga),
            resume=self._stated("resume", self._resume),
            stream=self._stream(),
            key=self._key(),
            errors=self._errors(),
            max_depth=self._max_depth(),
            floor=self._floor(timeout, retry),
            edge=read_edge(self._found, self._edge, self._refuse),
        )
        if policy.hedge is not None and not policy.idempotent:
            raise self._refuse("hedge", "only an idempotent RPC may be sent twice")
        if policy.cache is not None and self._level != _PURE:
            raise self._refuse("cache", "only an RPC with NO_SIDE_EFFECTS may be left out")
        return policy

    def _stated(self, field: str, read: Callable[[Any], T]) -> T | None:
        """What a message comes to; None: it is absent."""
        found = self._raw.HasField(field)  # type: ignore[arg-type]
        return read(getattr(self._raw, field)) if found else None

    def _check_arity(self) -> None:
        """What the RPC itself states must do something; defaults are for the service's others."""
        stated = self._own if self._live is None else self._live
        for field, useless, why in (
            ("retry", self._found.client_streaming, "a stream of requests is sent once"),
            ("hedge", self._streams, "only a call of one request and one response is made twice"),
            ("cache", self._streams, "only an answer of one response to one request is kept"),
            ("stream", not self._streams, "it streams nothing"),
        ):
            if useless and all(each.HasField(field) for each in (self._raw, stated)):  # type: ignore[arg-type]
                raise self._refuse(field, f"has no effect: {why}")

    def _refuse(self, field: str, problem: str) -> ContractError:
        return ContractError(self._file, self._full_name, field, problem)

    def _seconds(self, field: str, duration: duration_pb2.Duration) -> float:
        seconds = duration.seconds + duration.nanos / 1e9
        if seconds <= 0:
            raise self._refuse(field, f"must be longer than zero, not {seconds:g} s")
        if not (0 <= duration.nanos < 1_000_000_000 and duration.seconds <= _MAX_DURATION):
            raise self._refuse(field, "must have 0 to 999,999,999 nanos, and at most 10,000 years")
        return seconds

    def _bounded(self, field: str, duration: duration_pb2.Duration) -> float:
        seconds = self._seconds(field, duration)
        if not _MIN_TIMEOUT <= seconds <= _MAX_TIMEOUT:
            raise self._refuse(field, f"must lie between 1 ms and 1 h, not {seconds:g} s")
        return seconds

    def _timeout(self, raw: duration_pb2.Duration) -> float | None:
        timeout = self._bounded("timeout", raw)
        return timeout if self._own_timeout or not self._found.server_streaming else None

    def _attempt_timeout(self, timeout: float | None) -> float | None:
        if not self._raw.HasField("attempt_timeout"):
            return None
        attempt = self._bounded("attempt_timeout", self._raw.attempt_timeout)
        if timeout is not None and attempt > timeout:
            if self._live is not None and not self._live.HasField("attempt_timeout"):
                return None  # the contract's, made needless by a shorter live timeout
            raise self._refuse("attempt_timeout", "must not be longer than timeout")
        return attempt

    def _retry(self, raw: policy_pb2.Retry) -> RetryPolicy | None:
        if raw.max_attempts == 1 and self._live is not None:
            return None
        if not 2 <= raw.max_attempts <= _MAX_ATTEMPTS:
            raise self._refuse(
                "retry.max_attempts",
                f"must lie between 2 and {_MAX_ATTEMPTS}, not {raw.max_attempts}",
            )
        initial = self._or("retry.initial_backoff", raw, "initial_backoff", 0.1)
        longest = self._or("retry.max_backoff", raw, "max_backoff", max(10.0, initial))
        if longest < initial:
            raise self._refuse("retry.max_backoff", "must not be shorter than initial_backoff")
        codes = frozenset(self._code("retry.codes", number) for number in raw.codes)
        return RetryPolicy(raw.max_attempts, initial, longest, codes or RetryPolicy(2).codes)

    def _code(self, field: str, number: int) -> Code:
        if number not in policy_pb2.StatusCode.values() or number == Code.OK:
            raise self._refuse(field, f"{number} is not the code of a failure")
        return Code(number)

    def _or(
        self, field: str, raw: Message, name: str, default: float, longest: float = math.inf
    ) -> float:
        """A duration inside a message option, or its default."""
        if not raw.HasField(name):
            return default
        seconds = self._seconds(field, getattr(raw, name))
        if seconds > longest:
            raise self._refuse(field, f"must not be longer than {longest:g} s, not {seconds:g} s")
        return seconds

    def _hedge(self, raw: policy_pb2.Hedge) -> HedgePolicy:
        percentile = raw.percentile or 95.0
        if not 50.0 <= percentile <= 99.9:
            raise self._refuse(
                "hedge.percentile", f"must lie between 50 and 99.9, not {percentile:g}"
            )
        return HedgePolicy(percentile, self._or("hedge.min_delay", raw, "min_delay", 0.001))

    def _breaker(self, raw: policy_pb2.Breaker) -> BreakerPolicy:
        default = BreakerPolicy()
        if raw.failure_percent > 100:
            raise self._refuse("breaker.failure_percent", "must lie between 1 and 100")
        open_time = self._or("breaker.open", raw, "open", default.open)
        max_open = self._or("breaker.max_open", raw, "max_open", max(default.max_open, open_time))
        if max_open < open_time:
            raise self._refuse("breaker.max_open", "must not be shorter than open")
        return BreakerPolicy(
            raw.failure_percent or default.failure_percent,
            raw.min_calls or default.min_calls,
            self._or("breaker.window", raw, "window", default.window),
            raw.consecutive_failures or default.consecutive_failures,
            open_time,
            max_open,
            raw.probes or default.probes,
        )

    def _limit(self, raw: policy_pb2.Limit) -> LimitPolicy:
        if raw.priority not in policy_pb2.Priority.values():
            raise self._refuse("limit.priority", f"{raw.priority} is not a priority")
        if self._streams and self._own.limit.max_concurrent:
            raise self._refuse("limit.max_concurrent", "streams have a limit of their own")
        stated = raw.HasField("rate")
        rate = read_rate("limit.rate", raw.rate, self._refuse) if stated else None
        priority = Priority(raw.priority or Priority.DEFAULT)
        return LimitPolicy(priority, rate, raw.max_concurrent or math.inf)

    def _names(self, field: str, names: Iterable[str]) -> frozenset[str]:
        found = frozenset(names)
        if any(not name or name != name.strip() for name in found):
            raise self._refuse(field, "contains an empty name")
        return found

    def _method(self, field: str, name: str) -> str:
        if not METHOD.fullmatch(name):
            raise self._refuse(field, f"{name!r} is not a method such as 'pkg.Service/Method'")
        return f"/{name}"

    def _calls(self) -> Mapping[str, float]:
        calls: dict[str, float] = {}
        for entry in self._raw.calls:
            method = self._method("calls.method", entry.method)
            if not entry.HasField("timeout"):
                raise self._refuse("calls.timeout", f"is missing for {entry.method}")
            seconds = self._bounded("calls.timeout", entry.timeout)
            calls[method] = max(seconds, calls.get(method, 0.0))
        return MappingProxyType(calls)

    def _cache(self, raw: policy_pb2.Cache) -> CachePolicy:
        return CachePolicy(
            self._seconds("cache.ttl", raw.ttl),
            tuple(self._method("cache.invalidated_by", name) for name in raw.invalidated_by),
        )

    def _compensation(self, raw: policy_pb2.Compensation) -> CompensationPolicy:
        sides = {"request": self._found.input_type, "response": self._found.output_type}
        for fill in raw.fill:
            if not fill.field:
                raise self._refuse("compensation.fill.field", "is empty")
            side, _, path = getattr(fill, "from").partition(".")
            if side not in sides or not leads_to_field(sides[side], path):
                raise self._refuse(
                    "compensation.fill.from", f"{getattr(fill, 'from')!r} names no field"
                )
        return CompensationPolicy(
            self._method("compensation.method", raw.method),
            tuple((fill.field, getattr(fill, "from")) for fill in raw.fill),
        )

    def _saga(self, raw: policy_pb2.Saga) -> SagaPolicy:
        steps = tuple(self._method("saga.steps", step) for step in raw.steps)
        if not steps:
            raise self._refuse("saga.steps", "is empty")
        if raw.pivot and raw.pivot not in raw.steps:
            hint = meant(raw.pivot, raw.steps)
            raise self._refuse("saga.pivot", f"{raw.pivot!r} is not one of the steps{hint}")
        return SagaPolicy(
            self._seconds("saga.timeout", raw.timeout), steps, f"/{raw.pivot}" if raw.pivot else ""
        )

    def _resume(self, raw: policy_pb2.Resume) -> ResumePolicy:
        if self._own.stream.not_resumable:
            raise self._refuse("resume", "contradicts stream.not_resumable")
        if self._found.client_streaming or not self._found.server_streaming:
            raise self._refuse("resume", "only a server stream with a single request is resumable")
        self._token("resume.request_field", self._found.input_type, raw.request_field)
        self._token("resume.response_field", self._found.output_type, raw.response_field)
        return ResumePolicy(raw.request_field, raw.response_field)

    def _token(self, field: str, message: pb.Descriptor, name: str) -> None:
        found = message.fields_by_name.get(name)
        if found is None:
            raise self._refuse(field, f"{message.full_name} has no field {name!r}")
        types = (pb.FieldDescriptor.TYPE_INT64, pb.FieldDescriptor.TYPE_UINT64)
        if found.type not in types or found.is_repeated:
            raise self._refuse(field, f"{message.full_name}.{name} is not an int64 or uint64")

    def _stream(self) -> StreamPolicy:
        raw, default = self._raw.stream, StreamPolicy()
        return StreamPolicy(
            self._or("stream.max_lifetime", raw, "max_lifetime", default.max_lifetime, _MAX_STREAM),
            self._or("stream.idle", raw, "idle", default.idle, _MAX_STREAM),
            self._or("stream.keepalive", raw, "keepalive", default.keepalive, _MAX_STREAM),
            raw.not_resumable.strip(),
        )

    def _key(self) -> Key:
        number = self._raw.idempotency.key
        if number not in policy_pb2.Idempotency.Key.values():
            raise self._refuse("idempotency.key", f"{number} is not a kind of key")
        return Key(number)

    def _errors(self) -> frozenset[str]:
        for reason in self._raw.errors:
            if not _REASON.fullmatch(reason):
                raise self._refuse("errors", f"{reason!r} is not UPPER_SNAKE_CASE")
        return frozenset(self._raw.errors)

    def _max_depth(self) -> int | None:
        if self._raw.max_depth > _MAX_DEPTH:
            raise self._refuse("max_depth", f"must not be more than {_MAX_DEPTH}")
        return self._raw.max_depth if self._raw.HasField("max_depth") else None

    def _floor(self, timeout: float | None, retry: RetryPolicy | None) -> FloorPolicy:
        raw = self._raw.floor
        floor = FloorPolicy(self._or("floor.timeout", raw, "timeout", 0.0), raw.max_attempts)
        attempts = retry.max_attempts if retry else 1
        if self._live is not None and (problem := floor.broken_by(timeout, attempts)):
            raise self._refuse("", problem)
        if timeout is not None and floor.timeout > timeout:
            raise self._refuse("floor.timeout", "must not be longer than timeout")
        if floor.max_attempts > attempts:
            raise self._refuse("floor.max_attempts", "must not be more than retry.max_attempts")
        return floor
