"""The lint rules: one small function each, in modules by topic."""

from typing import Final

from accord_checks.rule import Rule
from accord_checks.rules import (
    cache,
    calls,
    compensation,
    events,
    idempotency,
    limits,
    policy,
    retries,
    sagas,
    streams,
    timeouts,
)

LINT: Final[tuple[Rule, ...]] = (
    policy.stated,
    policy.owned,
    policy.callers,
    policy.identities,
    policy.once,
    policy.valid,
    policy.floor,
    timeouts.stated,
    timeouts.valid,
    retries.bounds,
    retries.idempotent,
    retries.codes,
    retries.fits,
    idempotency.mutation,
    idempotency.agrees,
    idempotency.reads,
    compensation.exists,
    compensation.filled,
    compensation.safe,
    sagas.steps,
    sagas.fits,
    calls.exists,
    calls.fit,
    calls.room,
    calls.depth,
    calls.cycle,
    streams.resumable,
    streams.kept_alive,
    streams.effective,
    events.declared,
    events.valid,
    events.unique,
    cache.reads,
    cache.invalidated,
    limits.limited,
    limits.paged,
)
"""All lint rules, in the order of the documentation."""
