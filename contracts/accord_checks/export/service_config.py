"""A gRPC service config: what clients of other languages do natively (gRFC A2, A6).

Timeouts and retries of every RPC, under gRPC's own names. What a service config cannot say is left
out: `attempt_timeout`, the breaker, and hedging, whose delay is a percentile of what is observed
and not a constant.
"""

from typing import Final

from accord_checks.declarations import Rpc
from accord_checks.export import Json, json_duration, json_text
from accord_checks.export.resolved_contracts import ResolvedContracts

THROTTLING: Final = {"maxTokens": 10, "tokenRatio": 0.1}
"""The values of gRFC A6's own example: after five failures more than successes earn back, a channel
retries no more. gRPC has no retry budget in proportion to calls."""

MULTIPLIER: Final = 2
"""Growth of the back-off, that of `accord.policies.retry`."""


def export(contracts: ResolvedContracts, *, timeouts: bool = True) -> str:
    """The service config as JSON, one entry an RPC.

    Args:
        contracts: the contracts.
        timeouts: whether to state timeouts. gRPC's C-core (Python, Ruby, PHP, C++) ends calls a
            second or two before `timeout` and does not send it to the server (grpc/grpc#34547):
            leave them out for it and give each call its own.
    """
    entries = (_entry(rpc, timeouts) for rpc in contracts.rpcs())
    config: Json = {"methodConfig": [entry for entry in entries if len(entry) > 1]}
    if any("retryPolicy" in entry for entry in config["methodConfig"]):
        config["retryThrottling"] = THROTTLING
    return json_text(config)


def _entry(rpc: Rpc, timeouts: bool) -> Json:
    entry: Json = {"name": [{"service": rpc.service.name, "method": rpc.short}]}
    if timeouts and rpc.policy.timeout is not None:
        entry["timeout"] = json_duration(rpc.policy.timeout)
    if rpc.retry is not None:
        entry["retryPolicy"] = {
            "maxAttempts": rpc.retry.max_attempts,
            "initialBackoff": json_duration(rpc.retry.initial_backoff),
            "maxBackoff": json_duration(rpc.retry.max_backoff),
            "backoffMultiplier": MULTIPLIER,
            "retryableStatusCodes": [code.name for code in sorted(rpc.retry.codes)],
        }
    return entry
