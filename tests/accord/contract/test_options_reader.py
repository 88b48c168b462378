"""Contracts: merging, defaults, and the refusal of what contradicts itself."""

import itertools
import math
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format

import accord
from accord.contract import Key, LimitPolicy, StreamPolicy, live_policy
from accord.policies.breaker import BreakerPolicy
from accord.policies.rate_limit import RatePolicy
from accord.policies.types import Code, Priority
from accord.v1 import policy_pb2
from tests.accord.kit import SERVICE, path

_numbers = itertools.count()


def declare(
    policy: str = "",
    defaults: str = "",
    *,
    client_stream: bool = False,
    server_stream: bool = False,
    level: str = "IDEMPOTENCY_UNKNOWN",
) -> str:
    """Add a contract with one method to the pool; returns the method's full name."""
    package = f"declared{next(_numbers)}.v1"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/x.proto", package=package, syntax="proto3"
    )
    file.dependency.append("accord/v1/policy.proto")
    for name in ("Request", "Response"):
        message = file.message_type.add(name=name)
        message.field.add(name="id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
        message.field.add(name="token", number=2, type="TYPE_INT64", label="LABEL_OPTIONAL")
        message.field.add(name="tokens", number=3, type="TYPE_INT64", label="LABEL_REPEATED")
        message.field.add(name="small", number=4, type="TYPE_INT32", label="LABEL_OPTIONAL")
    service = file.service.add(name="Service")
    if defaults:
        parsed = text_format.Parse(f"defaults {{ {defaults} }}", policy_pb2.ServicePolicy())
        service.options.Extensions[policy_pb2.service].CopyFrom(parsed)
    method = service.method.add(
        name="Method",
        input_type=f".{package}.Request",
        output_type=f".{package}.Response",
        client_streaming=client_stream,
        server_streaming=server_stream,
    )
    method.options.idempotency_level = descriptor_pb2.MethodOptions.IdempotencyLevel.Value(level)
    if policy:
        method.options.Extensions[policy_pb2.policy].CopyFrom(
            text_format.Parse(policy, policy_pb2.MethodPolicy())
        )
    descriptor_pool.Default().Add(file)
    return f"/{package}.Service/Method"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ("timeout {}", "timeout"),
        ("timeout { seconds: -1 }", "timeout"),
        ("timeout { nanos: 10 }", "timeout"),
        ("timeout { seconds: 1 nanos: 2000000000 }", "timeout"),
        ("timeout { seconds: 1 nanos: -1 }", "timeout"),
        ("cache { ttl { seconds: 315576000001 } }", "cache.ttl"),
        ("timeout { seconds: 3601 }", "timeout"),
        ("attempt_timeout {}", "attempt_timeout"),
        ("timeout { seconds: 1 } attempt_timeout { seconds: 2 }", "attempt_timeout"),
        ("retry {}", "retry.max_attempts"),
        ("retry { max_attempts: 1 }", "retry.max_attempts"),
        ("retry { max_attempts: 99 }", "retry.max_attempts"),
        ("retry { max_attempts: 2 initial_backoff {} }", "retry.initial_backoff"),
        (
            "retry { max_attempts: 2 initial_backoff { seconds: 2 } max_backoff { seconds: 1 } }",
            "retry.max_backoff",
        ),
        ("retry { max_attempts: 2 codes: STATUS_CODE_OK_UNSPECIFIED }", "retry.codes"),
        ("retry { max_attempts: 2 codes: 77 }", "retry.codes"),
        ("hedge {}", "hedge"),
        ("idempotency { key: KEY_NATURAL } hedge { percentile: 10 }", "hedge.percentile"),
        ("breaker { failure_percent: 101 }", "breaker.failure_percent"),
        ("breaker { window {} }", "breaker.window"),
        ("breaker { open { seconds: 9 } max_open { seconds: 8 } }", "breaker.max_open"),
        ("limit { priority: 9 }", "limit.priority"),
        ("limit { rate {} }", "limit.rate.per_second"),
        ("limit { rate { per_second: -1 } }", "limit.rate.per_second"),
        ("allow: ''", "allow"),
        ("allow: 'a' allow: ' '", "allow"),
        ("calls { timeout { seconds: 1 } }", "calls.method"),
        ("calls { method: '/a.B/C' timeout { seconds: 1 } }", "calls.method"),
        ("calls { method: 'a.B/C' }", "calls.timeout"),
        ("calls { method: 'a.B/C' timeout {} }", "calls.timeout"),
        ("cache {}", "cache.ttl"),
        ("cache { ttl { seconds: 1 } invalidated_by: 'x' }", "cache.invalidated_by"),
        ("compensation {}", "compensation.method"),
        (
            "compensation { method: 'a.B/C' fill { field: 'id' from: 'request.no' } }",
            "compensation.fill.from",
        ),
        ("compensation { method: 'a.B/C' fill { from: 'request.id' } }", "compensation.fill.field"),
        ("idempotency { key: 9 }", "idempotency.key"),
        ("errors: 'lower_case'", "errors"),
        ("max_depth: 9", "max_depth"),
        ("timeout { seconds: 9 } floor { timeout { seconds: 60 } }", "floor.timeout"),
        ("floor { max_attempts: 2 }", "floor.max_attempts"),
        ("resume { request_field: 'token' response_field: 'token' }", "resume"),
        ("cache { ttl { seconds: 1 } }", "cache"),
        ("idempotency { key: KEY_REQUIRED } cache { ttl { seconds: 1 } }", "cache"),
    ],
)
def test_invalid_policy(policy: str, field: str) -> None:
    """A policy that contradicts itself is refused; the error names file, method and field."""
    method = declare(policy)
    service = method[1:].partition("/")[0]
    with pytest.raises(accord.ContractError) as caught:
        accord.check_service(service)
    assert caught.value.field == field
    assert caught.value.file == f"{service.removesuffix('.Service').replace('.', '/')}/x.proto"
    assert f"{service}/Method: {field}: " in str(caught.value)


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("no", "token"), "resume.request_field"),
        (("token", "no"), "resume.response_field"),
        (("id", "token"), "resume.request_field"),
        (("token", "small"), "resume.response_field"),
        (("tokens", "token"), "resume.request_field"),
    ],
)
def test_invalid_resume(names: tuple[str, str], field: str) -> None:
    """Tokens are single int64 or uint64 fields that exist."""
    policy = f"resume {{ request_field: '{names[0]}' response_field: '{names[1]}' }}"
    with pytest.raises(accord.ContractError) as caught:
        accord.method_policy(declare(policy, server_stream=True))
    assert caught.value.field == field


def test_invalid_stream() -> None:
    """Bounds of a stream are longer than nothing, and no longer than a day."""
    for field in ("max_lifetime", "idle", "keepalive"):
        for seconds in (0, 86_401):
            policy = f"stream {{ {field} {{ seconds: {seconds} }} }}"
            with pytest.raises(accord.ContractError, match=field):
                accord.method_policy(declare(policy, server_stream=True))


def test_defaults_are_merged_field_by_field() -> None:
    """A method's own field replaces the service's, message fields and lists as a whole."""
    method = declare(
        "retry { max_attempts: 2 } allow: 'b' timeout { seconds: 3 }",
        "retry { max_attempts: 4 max_backoff { seconds: 60 } } allow: 'a' allow: 'c'"
        " timeout { seconds: 9 } attempt_timeout { seconds: 1 }"
        " limit { priority: PRIORITY_CRITICAL }",
    )
    policy = accord.method_policy(method)
    assert policy.retry is not None
    assert (policy.retry.max_attempts, policy.retry.max_backoff) == (2, 10.0)
    assert {"b"} == policy.allow
    assert (policy.timeout, policy.attempt_timeout) == (3.0, 1.0)
    assert policy.limit == LimitPolicy(Priority.CRITICAL)


@pytest.mark.parametrize("stated", ["owner", "timeout { seconds: 3 }"])
@pytest.mark.parametrize("server_stream", [False, True])
def test_what_is_absent_is_off(stated: str, server_stream: bool) -> None:
    """Nothing acts that nobody has stated: neither by itself nor because of something else."""
    options = "" if stated == "owner" else stated
    policy = accord.method_policy(declare(options, "errors: 'A'", server_stream=server_stream))
    assert policy == accord.MethodPolicy(
        policy.method,
        declared=True,
        server_streaming=server_stream,
        timeout=3.0 if options else None,
        errors=frozenset({"A"}),
    )


def test_a_default_of_the_service_counts_as_present() -> None:
    """For all its methods, with the library's defaults for what it leaves out."""
    policy = accord.method_policy(declare("timeout { seconds: 3 }", "breaker {} limit {}"))
    assert (policy.breaker, policy.limit) == (BreakerPolicy(), LimitPolicy())


def test_library_defaults() -> None:
    """What a policy leaves out has the documented defaults."""
    stream = "stream { idle { seconds: 5 } }"
    policy = accord.method_policy(declare(f"breaker {{}} limit {{}} {stream}", server_stream=True))
    assert policy.breaker is not None
    assert (
        policy.breaker.failure_percent,
        policy.breaker.min_calls,
        policy.breaker.window,
        policy.breaker.consecutive_failures,
        policy.breaker.open,
        policy.breaker.max_open,
        policy.breaker.probes,
    ) == (50, 10, 10.0, 5, 10.0, 30.0, 1)
    assert policy.limit == LimitPolicy(Priority.DEFAULT, None)
    assert policy.key is Key.NONE
    assert not policy.idempotent
    assert policy.stream == StreamPolicy(math.inf, 5.0, math.inf)


def test_everything_is_read() -> None:
    """Every field of a contract arrives in the policy."""
    method = declare(
        """
        timeout { seconds: 5 } attempt_timeout { seconds: 1 nanos: 500000000 }
        retry { max_attempts: 3 initial_backoff { nanos: 50000000 }
                codes: [STATUS_CODE_UNAVAILABLE, STATUS_CODE_ABORTED] }
        hedge { percentile: 99 min_delay { nanos: 5000000 } }
        limit { rate { per_second: 2.5 } }
        calls { method: 'a.B/C' timeout { seconds: 1 } }
        calls { method: 'a.B/C' timeout { seconds: 2 } }
        cache { ttl { seconds: 30 } invalidated_by: 'a.B/C' }
        compensation { method: 'a.B/C' fill { field: 'id' from: 'response.id' } }
        errors: ['SOLD_OUT'] max_depth: 0
        floor { timeout { seconds: 1 } max_attempts: 2 }
        """,
        level="NO_SIDE_EFFECTS",
    )
    policy = accord.method_policy(method)
    assert policy.method == method
    assert policy.idempotent
    assert policy.attempt_timeout == 1.5
    assert policy.retry is not None
    assert {Code.UNAVAILABLE, Code.ABORTED} == policy.retry.codes
    assert policy.hedge is not None
    assert (policy.hedge.percentile, policy.hedge.min_delay) == (99.0, 0.005)
    assert policy.limit == LimitPolicy(rate=RatePolicy(2.5, 3))
    assert dict(policy.calls) == {"/a.B/C": 2.0}
    assert policy.cache is not None
    assert (policy.cache.ttl, policy.cache.invalidated_by) == (30.0, ("/a.B/C",))
    assert policy.compensation is not None
    assert (
        policy.compensation.method,
        policy.compensation.fill,
    ) == ("/a.B/C", (("id", "response.id"),))
    assert {"SOLD_OUT"} == policy.errors
    assert policy.max_depth == 0
    assert (policy.floor.timeout, policy.floor.max_attempts) == (1.0, 2)


def test_floor_of_an_attempt() -> None:
    """A contract whose attempts are shorter than its floor keeps them, and lets none be shorter."""
    method = declare(
        "timeout { seconds: 5 } attempt_timeout { seconds: 1 } floor { timeout { seconds: 3 } }"
    )

    def live(text: str) -> float | None:
        changes = text_format.Parse(text, policy_pb2.MethodPolicy())
        return live_policy(method, changes, (), "live policy").attempt_timeout

    assert live("timeout { seconds: 4 }") == 1.0
    assert live("attempt_timeout { seconds: 2 }") == 2.0
    with pytest.raises(accord.ContractError, match=r"an attempt_timeout of 0.9 s is below"):
        live("attempt_timeout { nanos: 900000000 }")


def test_streams_have_a_lifetime_instead_of_the_default_timeout() -> None:
    """A service's default timeout is for unary calls; a stream's own timeout counts."""
    default = declare(defaults="timeout { seconds: 2 }", server_stream=True)
    own = declare("timeout { seconds: 7 }", server_stream=True)
    upload = declare(defaults="timeout { seconds: 2 }", client_stream=True)
    assert accord.method_policy(default).timeout is None
    assert accord.method_policy(own).timeout == 7.0
    assert accord.method_policy(upload).timeout == 2.0


def test_policy_is_resolved_once() -> None:
    """A policy is one frozen object per method."""
    assert accord.method_policy(path("Unary")) is accord.method_policy(path("Unary"))
    policy: Any = accord.method_policy(path("Unary"))
    with pytest.raises(AttributeError):
        policy.timeout = 1.0


@pytest.mark.parametrize("method", ["/grpc.nothing.v1.Nothing/Check", "/", "/nonsense", "/a/b/c"])
def test_unknown_methods_are_safe(method: str) -> None:
    """Of a method that nobody has declared nothing is asked."""
    assert accord.method_policy(method) == accord.MethodPolicy(method)


def test_check_service() -> None:
    """All policies of a service at once; a service that does not exist is a KeyError."""
    assert path("Unary") in {policy.method for policy in accord.check_service(SERVICE)}
    with pytest.raises(KeyError):
        accord.check_service("no.such.Service")


def event(options: str) -> Any:
    """A message with event options."""
    package = f"declared{next(_numbers)}.v1"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/e.proto", package=package, syntax="proto3"
    )
    file.dependency.append("accord/v1/policy.proto")
    message = file.message_type.add(name="Event")
    message.field.add(name="id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    message.field.add(name="ids", number=2, type="TYPE_STRING", label="LABEL_REPEATED")
    if options:
        message.options.Extensions[policy_pb2.event].CopyFrom(
            text_format.Parse(options, policy_pb2.EventPolicy())
        )
    descriptor_pool.Default().Add(file)
    return descriptor_pool.Default().FindMessageTypeByName(f"{package}.Event")


def test_event() -> None:
    """An event's options are found; a message without them is no event."""
    found = accord.event_policy(event("subject: 'orders.order.created' version: 2 key: 'id'"))
    assert found == accord.EventPolicy("orders.order.created", 2, "id")
    assert accord.event_policy(event("")) is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ("version: 1 key: 'id'", "event.subject"),
        ("subject: 'a..b' version: 1 key: 'id'", "event.subject"),
        ("subject: 'a.*' version: 1 key: 'id'", "event.subject"),
        ("subject: 'a.b' key: 'id'", "event.version"),
        ("subject: 'a.b' version: 1", "event.key"),
        ("subject: 'a.b' version: 1 key: 'no'", "event.key"),
        ("subject: 'a.b' version: 1 key: 'ids'", "event.key"),
    ],
)
def test_invalid_event(options: str, field: str) -> None:
    """An event needs a subject, a version and a key that exists."""
    with pytest.raises(accord.ContractError) as caught:
        accord.event_policy(event(options))
    assert caught.value.field == field
