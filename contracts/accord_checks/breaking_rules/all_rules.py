"""All rules for changes, in the order of the documentation."""

from typing import Final

from accord_checks.breaking_rules import (
    cache,
    callers,
    calls,
    edge,
    error_reasons,
    events,
    idempotency,
    limits,
    policies,
    retries_and_breakers,
    sagas_and_compensation,
    streams,
    timeouts,
    validation,
)
from accord_checks.breaking_rules.change import ChangeRule, Comparison
from accord_checks.declarations import Event, Rpc, Service

SERVICE_RULES: Final[tuple[Comparison[Service], ...]] = (policies.removed, policies.begun)
RPC_RULES: Final[tuple[Comparison[Rpc], ...]] = (
    timeouts.shortened,
    timeouts.lengthened,
    timeouts.attempt,
    streams.shortened,
    streams.changed,
    retries_and_breakers.removed,
    retries_and_breakers.changed,
    retries_and_breakers.hedged,
    retries_and_breakers.breaker,
    callers.removed,
    callers.added,
    callers.opened,
    limits.changed,
    limits.lowered,
    limits.priority_raised,
    limits.depth_lowered,
    limits.depth_raised,
    limits.floor_lowered,
    limits.bound_removed,
    idempotency.weakened,
    idempotency.demanded,
    sagas_and_compensation.compensation,
    sagas_and_compensation.steps,
    sagas_and_compensation.saga,
    streams.resume,
    error_reasons.removed,
    error_reasons.added,
    calls.changed,
    cache.changed,
    cache.stale,
    edge.removed,
    edge.changed,
    edge.added,
    edge.scope_added,
    edge.scope_removed,
    edge.rate_lowered,
    policies.undeprecated,
)
EVENT_RULES: Final[tuple[Comparison[Event], ...]] = (
    events.subject,
    events.key,
    events.version_lowered,
    events.version_raised,
    events.field_removed,
)
BREAKING_RULES: Final[tuple[ChangeRule, ...]] = (
    *(found.rule for found in SERVICE_RULES),
    *(found.rule for found in RPC_RULES),
    events.REMOVED,
    *(found.rule for found in EVENT_RULES),
    validation.TIGHTENED,
    validation.REMOVED,
    validation.LOOSENED,
)
"""The rules that buf knows: those of breaking and of risky changes."""
