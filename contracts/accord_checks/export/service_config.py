"""A gRPC service config: what clients of other languages do natively (gRFC A2, A6).

Timeouts and retries of every RPC, under gRPC's own names. What a service config cannot say is left
out: `attempt_timeout`, the breaker, and hedging, whose delay is a percentile of what is observed
and not a constant.
"""

from typing import Final

from accord_checks.export.catalog import Catalog, Method
from accord_checks.export.output import Json, duration, text

THROTTLING: Final = {"maxTokens": 10, "tokenRatio": 0.1}
"""The values of gRFC A6's own example: after five failures more than successes earn back, a channel
retries no more. gRPC has no retry budget in proportion to calls."""

MULTIPLIER: Final = 2
"""Growth of the back-off, that of `accord.policies.retry`."""


def export(catalog: Catalog, *, timeouts: bool = True) -> str:
    """The service config as JSON, one entry an RPC.

    Args:
        catalog: the contracts.
        timeouts: whether to state timeouts. gRPC's C-core (Python, Ruby, PHP, C++) ends calls a
            second or two before `timeout` and does not send it to the server (grpc/grpc#34547):
            leave them out for it and give each call its own.
    """
    entries = (_entry(method, timeouts) for method in catalog.methods())
    return text(
        {
            "methodConfig": [entry for entry in entries if len(entry) > 1],
            "retryThrottling": THROTTLING,
        }
    )


def _entry(method: Method, timeouts: bool) -> Json:
    entry: Json = {"name": [{"service": method.service, "method": method.name}]}
    if timeouts and method.policy.timeout is not None:
        entry["timeout"] = duration(method.policy.timeout)
    if method.retry is not None:
        entry["retryPolicy"] = {
            "maxAttempts": method.retry.max_attempts,
            "initialBackoff": duration(method.retry.initial_backoff),
            "maxBackoff": duration(method.retry.max_backoff),
            "backoffMultiplier": MULTIPLIER,
            "retryableStatusCodes": [code.name for code in sorted(method.retry.codes)],
        }
    return entry
