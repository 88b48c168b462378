"""Routes for Envoy: timeouts and retries for those who run it as a sidecar or gateway.

A RouteConfiguration (envoy.config.route.v3) with one route an RPC, to the cluster that has the name
of its service. A call that no contract knows is not routed. It is wrapped as Envoy reads it from a
file (RDS, `path_config_source`), and reads it again when the file is replaced.
"""

import math
from typing import Final

from accord.policies.retry import RetryPolicy
from accord.policies.types import Code
from accord_checks.declarations import Rpc
from accord_checks.export import Json, json_duration, json_text
from accord_checks.export.resolved_contracts import ResolvedContracts

NAME: Final = "contracts"
"""What Envoy's `route_config_name` must say."""

TYPE: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

# The status codes that Envoy knows by name; others are matched in the header that carries them.
_NAMED: Final = {
    Code.CANCELLED: "cancelled",
    Code.DEADLINE_EXCEEDED: "deadline-exceeded",
    Code.INTERNAL: "internal",
    Code.RESOURCE_EXHAUSTED: "resource-exhausted",
    Code.UNAVAILABLE: "unavailable",
}
# What a gRPC client would have seen as UNAVAILABLE: a server that cannot be reached, a connection
# that broke.
_UNREACHABLE: Final = ("connect-failure", "refused-stream", "reset-before-request")
_BROKEN: Final = "reset"
# So that a retry goes to another host while there is one.
_OTHER_HOST: Final = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/"
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}
_HOST_TRIES: Final = 5


def export(contracts: ResolvedContracts) -> str:
    """A DiscoveryResponse with the RouteConfiguration, as JSON."""
    hosts = {
        "name": NAME,
        "domains": ["*"],
        "routes": [_route(rpc) for rpc in contracts.rpcs()],
    }
    routes = {"@type": TYPE, "name": NAME, "virtual_hosts": [hosts]}
    return json_text({"resources": [routes]})


def _route(rpc: Rpc) -> Json:
    return {
        "name": rpc.name,
        "match": {"path": rpc.policy.method, "grpc": {}},
        "route": action(rpc),
    }


def action(rpc: Rpc) -> Json:
    """Where the calls of an RPC go, how long they may take and what is repeated."""
    policy = rpc.policy
    longest = policy.stream.max_lifetime if policy.timeout is None else policy.timeout
    made: Json = {
        "cluster": rpc.service.name,
        # `timeout` starts when the request has ended, and its default is 15 s. The duration of the
        # stream is that of the call, retries included; a caller may ask for less, not for more.
        "timeout": "0s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},  # as the caller says
    }
    if math.isfinite(longest):
        made["max_stream_duration"] = {
            "max_stream_duration": json_duration(longest),
            "grpc_timeout_header_max": json_duration(longest),
        }
    if policy.timeout is None:
        idle = policy.stream.idle
        made["idle_timeout"] = "0s" if math.isinf(idle) else json_duration(idle)
    if rpc.retry is not None:
        made["retry_policy"] = _retry(rpc.retry, policy.attempt_timeout)
    return made


def _retry(policy: RetryPolicy, attempt_timeout: float | None) -> Json:
    codes = sorted(policy.codes)
    conditions = [_NAMED[code] for code in codes if code in _NAMED]
    if Code.UNAVAILABLE in codes:
        conditions += _UNREACHABLE
    # An attempt that took too long is broken off, too: Envoy has one word for both.
    if attempt_timeout is None and Code.UNAVAILABLE in codes:
        conditions.append(_BROKEN)
    if attempt_timeout is not None and Code.DEADLINE_EXCEEDED in codes:
        conditions.append(_BROKEN)
    others = [code for code in codes if code not in _NAMED]
    if others:
        conditions.append("retriable-headers")
    retry: Json = {
        "retry_on": ",".join(conditions),
        "num_retries": policy.max_attempts - 1,
        "retry_back_off": {
            "base_interval": json_duration(policy.initial_backoff),
            "max_interval": json_duration(policy.max_backoff),
        },
        "retry_host_predicate": [_OTHER_HOST],
        "host_selection_retry_max_attempts": _HOST_TRIES,
    }
    if others:
        retry["retriable_headers"] = [
            {"name": "grpc-status", "string_match": {"exact": str(int(code))}} for code in others
        ]
    if attempt_timeout is not None:
        retry["per_try_timeout"] = json_duration(attempt_timeout)
    return retry
