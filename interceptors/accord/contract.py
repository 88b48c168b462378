"""The contract of a method: its options in the .proto, read once into one frozen object.

`method_policy("/pkg.Service/Method")` merges the method's `(accord.v1.policy)` with the defaults of
its service field by field (a message field is replaced whole), fills in the library's defaults and
keeps the result. A policy that contradicts itself raises `ContractError`, which names file, method
and field; a server checks all its services at start-up with `check_service`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2
from google.protobuf.message import Message

from accord.policies.breaker import BreakerPolicy
from accord.policies.cache import CachePolicy
from accord.policies.codes import Code
from accord.policies.hedge import HedgePolicy
from accord.policies.priority import Priority
from accord.policies.ratelimit import RatePolicy
from accord.policies.retry import RetryPolicy
from accord.v1 import policy_pb2

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds a unary or client-streaming call may take if its contract does not say."""

DEFAULT_MAX_DEPTH: Final = 2
"""Synchronous hops between the edge and an RPC if its contract does not say."""

LIVE_FIELDS: Final = frozenset(
    {
        "timeout",
        "attempt_timeout",
        "retry",
        "hedge",
        "breaker",
        "limit",
        "cache",
        "stream",
        "max_depth",
    }
)
"""What live policy may change. The rest is meaning (keys, resume tokens) or security."""

_MIN_TIMEOUT: Final = 0.001
_MAX_TIMEOUT: Final = 3600.0
_MAX_STREAM: Final = 86_400.0
_MAX_ATTEMPTS: Final = 5
_MAX_DEPTH: Final = 8
_DURATION: Final = duration_pb2.Duration.DESCRIPTOR.full_name
_METHOD_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*", re.ASCII)
_PURE: Final = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
_REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_SUBJECT = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class ContractError(Exception):
    """A contract contradicts itself. Raised at start-up or at the first use of a method."""

    def __init__(self, file: str, element: str, field: str, problem: str) -> None:
        super().__init__(f"{file}: {element}: {field}: {problem}")
        self.file = file
        self.element = element
        self.field = field
        self.problem = problem


class Key(Enum):
    """What makes a repeated call safe."""

    NONE = 0
    """Nothing is promised."""
    REQUIRED = 1
    """The caller must send a key."""
    NATURAL = 2
    """The request says it all; a key is obeyed when it is sent."""


class Dark(Enum):
    """Policies that live policy may switch to dark mode: they decide and count, but do not act.

    Authorisation, validation and idempotency are not among them: they may not be weakened.
    """

    DEPTH = 1
    RATE_LIMIT = 2
    CONCURRENCY_LIMIT = 3
    BREAKER = 4
    RETRY = 5
    RETRY_BUDGET = 6
    HEDGE = 7
    CACHE = 8


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Server-side admission."""

    priority: Priority = Priority.DEFAULT
    rate: RatePolicy | None = None


@dataclass(frozen=True, slots=True)
class CompensationPolicy:
    """The RPC that undoes this one; `fill` maps its request's fields to where they come from."""

    method: str
    fill: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """The resume token of a server stream."""

    request_field: str
    response_field: str


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """Bounds of a stream in seconds; `inf` means none."""

    max_lifetime: float = 3600.0
    idle: float = 90.0
    keepalive: float = 30.0
    not_resumable: str = ""
    """Why a stream that breaks cannot be continued; empty if nobody says."""


@dataclass(frozen=True, slots=True)
class SagaPolicy:
    """The steps that an RPC sets off: full method names, in order. Times are seconds."""

    timeout: float
    steps: tuple[str, ...]
    pivot: str = ""
    """The step after which there is no way back; empty if every step can be undone."""


@dataclass(frozen=True, slots=True)
class FloorPolicy:
    """What live policy may not go below."""

    timeout: float = 0.0
    max_attempts: int = 0


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """All that a contract says about one RPC, defaults filled in. Times are seconds."""

    method: str
    """Full name as it travels: "/pkg.Service/Method"."""
    declared: bool = False
    """Whether the contract says anything: health, reflection and strangers' methods do not."""
    client_streaming: bool = False
    server_streaming: bool = False
    safe: bool = False
    """NO_SIDE_EFFECTS or IDEMPOTENT by protobuf's own `idempotency_level`."""
    timeout: float | None = DEFAULT_TIMEOUT
    """None for a stream that the server writes and whose own contract states no timeout."""
    attempt_timeout: float | None = None
    retry: RetryPolicy | None = None
    hedge: HedgePolicy | None = None
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    limit: LimitPolicy = LimitPolicy()
    allow: frozenset[str] = frozenset()
    calls: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Full method name -> seconds that this RPC allows for a nested call of it."""
    cache: CachePolicy | None = None
    compensation: CompensationPolicy | None = None
    saga: SagaPolicy | None = None
    resume: ResumePolicy | None = None
    stream: StreamPolicy = StreamPolicy()
    key: Key = Key.NONE
    errors: frozenset[str] = frozenset()
    max_depth: int = DEFAULT_MAX_DEPTH
    floor: FloorPolicy = FloorPolicy()
    dark: frozenset[Dark] = frozenset()
    """Policies that only decide and count; set by live policy alone."""

    @property
    def idempotent(self) -> bool:
        """Whether sending the request twice is safe, without or with the key it requires."""
        return self.safe or self.key is not Key.NONE


@dataclass(frozen=True, slots=True)
class EventPolicy:
    """What makes a message an event."""

    subject: str
    version: int
    key: str


_policies: dict[str, MethodPolicy] = {}


def method_policy(method: str) -> MethodPolicy:
    """The policy of a full method name, "/pkg.Service/Method"; found once, then kept.

    A method that the process has no descriptor of gets a safe default. Raises ContractError.
    """
    policy = _policies.get(method)
    if policy is None:
        try:
            found = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
        except KeyError:
            return _stranger(method)  # not kept: its descriptor may still be imported
        policy = _policies[method] = _Reader(found).policy()
    return policy


def live_policy(
    method: str, changes: policy_pb2.MethodPolicy, dark: Iterable[Dark], source: str
) -> MethodPolicy:
    """The policy of a method with live changes on top, checked as a contract is.

    Scalars and lists replace the contract's, messages are merged with it. One attempt is a valid
    change ("no retries"). `source` names where the changes come from.

    Raises:
        ContractError: they contradict themselves, go below the contract's floor, or touch what is
            not a matter of operation; the error names source, method and field.
        KeyError: the process does not know the method.
    """

    def refuse(field: str, problem: str) -> ContractError:
        return ContractError(source, method[1:], field, problem)

    found = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
    for descriptor, _ in changes.ListFields():
        if descriptor.name not in LIVE_FIELDS:
            raise refuse(descriptor.name, "cannot be changed by live policy")
    policy = replace(_Reader(found, changes, source).policy(), dark=frozenset(dark))
    shortest = min(policy.floor.timeout, method_policy(method).attempt_timeout or math.inf)
    if (policy.attempt_timeout or math.inf) < shortest:
        raise refuse("attempt_timeout", "must not be shorter than floor.timeout")
    if Dark.RETRY in policy.dark and policy.floor.max_attempts > 1:
        raise refuse("dark", "retries are needed for floor.max_attempts")
    return policy


def check_service(service: str) -> tuple[MethodPolicy, ...]:
    """Read the policies of all methods of a service, "pkg.Service".

    Raises ContractError if one is invalid, KeyError if the service is not known.
    """
    found = descriptor_pool.Default().FindServiceByName(service)
    return tuple(method_policy(f"/{service}/{method.name}") for method in found.methods)


def event_policy(message: Message | type[Message] | pb.Descriptor) -> EventPolicy | None:
    """The event options of a message, or None if it is not an event. Raises ContractError."""
    found = message if isinstance(message, pb.Descriptor) else message.DESCRIPTOR
    return _event(found.full_name)


@dataclass(frozen=True, slots=True)
class Reading:
    """A method's options as they are written, and what they come to."""

    written: policy_pb2.MethodPolicy
    """The method's own options merged with the defaults of its service, right or wrong."""
    policy: MethodPolicy
    """What they come to; a field that is wrong counts as not written."""
    problems: tuple[ContractError, ...]
    """What is wrong, at most one for each field of the policy."""


def read_method(method: pb.MethodDescriptor) -> Reading:
    """Read a method of any descriptor pool, valid or not. Nothing is kept."""
    reader = _Reader(method)
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
            reader._forget(problem.field.partition(".")[0])


def read_event(message: pb.Descriptor) -> EventPolicy | None:
    """The event options of a message of any descriptor pool; None if it is not an event.

    Raises ContractError. Nothing is kept.
    """
    options = message.GetOptions()
    if not options.HasExtension(policy_pb2.event):
        return None
    raw = options.Extensions[policy_pb2.event]

    def refuse(field: str, problem: str) -> ContractError:
        return ContractError(message.file.name, message.full_name, f"event.{field}", problem)

    if not _SUBJECT.fullmatch(raw.subject):
        raise refuse("subject", f"{raw.subject!r} is not a subject such as 'orders.order.created'")
    if raw.version < 1:
        raise refuse("version", "must be at least 1")
    key = message.fields_by_name.get(raw.key)
    if key is None:
        raise refuse("key", f"{message.full_name} has no field {raw.key!r}")
    if key.is_repeated or key.type == pb.FieldDescriptor.TYPE_MESSAGE:
        raise refuse("key", f"field {raw.key!r} is not a single value")
    return EventPolicy(raw.subject, raw.version, raw.key)


@lru_cache(maxsize=1024)
def _stranger(method: str) -> MethodPolicy:
    return MethodPolicy(method, stream=StreamPolicy(idle=math.inf))


@cache
def _event(full_name: str) -> EventPolicy | None:
    return read_event(descriptor_pool.Default().FindMessageTypeByName(full_name))


class _Reader:
    """Reads one method's options; every refusal names file, method and field."""

    def __init__(
        self,
        method: pb.MethodDescriptor,
        live: policy_pb2.MethodPolicy | None = None,
        source: str = "",
    ) -> None:
        service = method.containing_service
        self._found = method
        self._live = live
        self._file = source or service.file.name
        self._full_name = f"{service.full_name}/{method.name}"
        options, service_options = method.GetOptions(), service.GetOptions()
        self._level = options.idempotency_level
        self._own = options.Extensions[policy_pb2.policy]
        self._declared = options.HasExtension(policy_pb2.policy) or service_options.HasExtension(
            policy_pb2.service
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

    def policy(self) -> MethodPolicy:
        raw = self._raw
        timeout = self._timeout()
        retry = self._retry()
        limits = StreamPolicy() if self._declared else StreamPolicy(idle=math.inf)
        policy = MethodPolicy(
            method=f"/{self._full_name}",
            declared=self._declared,
            client_streaming=self._found.client_streaming,
            server_streaming=self._found.server_streaming,
            safe=self._level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
            timeout=timeout,
            attempt_timeout=self._attempt_timeout(timeout),
            retry=retry,
            hedge=self._hedge(),
            breaker=self._breaker(),
            limit=self._limit(),
            allow=self._names("allow", raw.allow),
            calls=self._calls(),
            cache=self._cache(),
            compensation=self._compensation(),
            saga=self._saga(),
            resume=self._resume(),
            stream=self._stream() if raw.HasField("stream") else limits,
            key=self._key(),
            errors=self._errors(),
            max_depth=self._max_depth(),
            floor=self._floor(timeout, retry),
        )
        if policy.hedge is not None and not policy.idempotent:
            raise self._refuse("hedge", "only an idempotent RPC may be sent twice")
        if policy.cache is not None and self._level != _PURE:
            raise self._refuse("cache", "only an RPC with NO_SIDE_EFFECTS may be left out")
        return policy

    def _forget(self, field: str) -> None:
        """Go on as if a field were not written."""
        self._raw.ClearField(field)  # type: ignore[arg-type]

    def _refuse(self, field: str, problem: str) -> ContractError:
        return ContractError(self._file, self._full_name, field, problem)

    def _seconds(self, field: str, duration: duration_pb2.Duration) -> float:
        seconds = duration.seconds + duration.nanos / 1e9
        if seconds <= 0:
            raise self._refuse(field, f"must be longer than zero, not {seconds:g} s")
        return seconds

    def _bounded(self, field: str, duration: duration_pb2.Duration) -> float:
        seconds = self._seconds(field, duration)
        if not _MIN_TIMEOUT <= seconds <= _MAX_TIMEOUT:
            raise self._refuse(field, f"must lie between 1 ms and 1 h, not {seconds:g} s")
        return seconds

    def _timeout(self) -> float | None:
        if self._raw.HasField("timeout"):
            timeout = self._bounded("timeout", self._raw.timeout)
            if not self._found.server_streaming or self._own_timeout:
                return timeout
        return None if self._found.server_streaming else DEFAULT_TIMEOUT

    def _attempt_timeout(self, timeout: float | None) -> float | None:
        if not self._raw.HasField("attempt_timeout"):
            return None
        attempt = self._bounded("attempt_timeout", self._raw.attempt_timeout)
        if timeout is not None and attempt > timeout:
            if self._live is not None and not self._live.HasField("attempt_timeout"):
                return None  # the contract's, made needless by a shorter live timeout
            raise self._refuse("attempt_timeout", "must not be longer than timeout")
        return attempt

    def _retry(self) -> RetryPolicy | None:
        if not self._raw.HasField("retry"):
            return None
        raw = self._raw.retry
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

    def _hedge(self) -> HedgePolicy | None:
        if not self._raw.HasField("hedge"):
            return None
        raw = self._raw.hedge
        percentile = raw.percentile or 95.0
        if not 50.0 <= percentile <= 99.9:
            raise self._refuse(
                "hedge.percentile", f"must lie between 50 and 99.9, not {percentile:g}"
            )
        return HedgePolicy(percentile, self._or("hedge.min_delay", raw, "min_delay", 0.001))

    def _breaker(self) -> BreakerPolicy:
        raw, default = self._raw.breaker, BreakerPolicy()
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

    def _limit(self) -> LimitPolicy:
        raw = self._raw.limit
        if raw.priority not in policy_pb2.Priority.values():
            raise self._refuse("limit.priority", f"{raw.priority} is not a priority")
        priority = Priority(raw.priority or Priority.DEFAULT)
        if not raw.HasField("rate"):
            return LimitPolicy(priority)
        per_second = raw.rate.per_second
        if not 0 < per_second < math.inf:
            raise self._refuse("limit.rate.per_second", "must be more than zero")
        return LimitPolicy(
            priority, RatePolicy(per_second, raw.rate.burst or math.ceil(per_second))
        )

    def _names(self, field: str, names: Iterable[str]) -> frozenset[str]:
        found = frozenset(names)
        if any(not name or name != name.strip() for name in found):
            raise self._refuse(field, "contains an empty name")
        return found

    def _method(self, field: str, name: str) -> str:
        if not _METHOD_NAME.fullmatch(name):
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

    def _cache(self) -> CachePolicy | None:
        if not self._raw.HasField("cache"):
            return None
        raw = self._raw.cache
        return CachePolicy(
            self._seconds("cache.ttl", raw.ttl),
            tuple(self._method("cache.invalidated_by", name) for name in raw.invalidated_by),
        )

    def _compensation(self) -> CompensationPolicy | None:
        if not self._raw.HasField("compensation"):
            return None
        raw = self._raw.compensation
        sides = {"request": self._found.input_type, "response": self._found.output_type}
        for fill in raw.fill:
            if not fill.field:
                raise self._refuse("compensation.fill.field", "is empty")
            side, _, path = getattr(fill, "from").partition(".")
            if side not in sides or not _has_path(sides[side], path):
                raise self._refuse(
                    "compensation.fill.from", f"{getattr(fill, 'from')!r} names no field"
                )
        return CompensationPolicy(
            self._method("compensation.method", raw.method),
            tuple((fill.field, getattr(fill, "from")) for fill in raw.fill),
        )

    def _saga(self) -> SagaPolicy | None:
        if not self._raw.HasField("saga"):
            return None
        raw = self._raw.saga
        steps = tuple(self._method("saga.steps", step) for step in raw.steps)
        if not steps:
            raise self._refuse("saga.steps", "is empty")
        if raw.pivot and raw.pivot not in raw.steps:
            raise self._refuse("saga.pivot", f"{raw.pivot!r} is not one of the steps")
        return SagaPolicy(
            self._seconds("saga.timeout", raw.timeout), steps, f"/{raw.pivot}" if raw.pivot else ""
        )

    def _resume(self) -> ResumePolicy | None:
        if not self._raw.HasField("resume"):
            return None
        if self._own.stream.not_resumable:
            raise self._refuse("resume", "contradicts stream.not_resumable")
        if self._found.client_streaming or not self._found.server_streaming:
            raise self._refuse("resume", "only a server stream with a single request is resumable")
        raw = self._raw.resume
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

    def _max_depth(self) -> int:
        if not self._raw.HasField("max_depth"):
            return DEFAULT_MAX_DEPTH
        if self._raw.max_depth > _MAX_DEPTH:
            raise self._refuse("max_depth", f"must not be more than {_MAX_DEPTH}")
        return self._raw.max_depth

    def _floor(self, timeout: float | None, retry: RetryPolicy | None) -> FloorPolicy:
        raw = self._raw.floor
        shortest = self._or("floor.timeout", raw, "timeout", 0.0)
        if timeout is not None and shortest > timeout:
            raise self._refuse("floor.timeout", "must not be longer than timeout")
        if raw.max_attempts > (retry.max_attempts if retry else 1):
            raise self._refuse("floor.max_attempts", "must not be more than retry.max_attempts")
        return FloorPolicy(shortest, raw.max_attempts)


def merge_options(changes: Message, into: Message) -> None:
    """Put what `changes` states into `into`: messages are merged, all else is replaced."""
    for descriptor, value in changes.ListFields():
        name = descriptor.name
        if descriptor.is_repeated:
            into.ClearField(name)
            getattr(into, name).extend(value)
        elif descriptor.message_type is None:
            setattr(into, name, value)
        elif descriptor.message_type.full_name == _DURATION:
            getattr(into, name).CopyFrom(value)
        else:
            getattr(into, name).SetInParent()
            merge_options(value, getattr(into, name))


def _has_path(message: pb.Descriptor | None, path: str) -> bool:
    """Whether a dotted path leads to a field."""
    for name in path.split("."):
        found = message.fields_by_name.get(name) if message is not None else None
        if found is None:
            return False
        message = found.message_type
    return True
