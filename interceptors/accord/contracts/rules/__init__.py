"""The lint rules: one small function each, in modules by topic."""

from typing import Final

from accord.contracts.rule import Rule
from accord.contracts.rules import (
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
    policy.valid,
    policy.floor,
    timeouts.stated,
    timeouts.valid,
    retries.bounds,
    retries.idempotent,
    idempotency.mutation,
    idempotency.agrees,
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
    events.declared,
    events.valid,
    events.unique,
    cache.reads,
    cache.invalidated,
    limits.limited,
    limits.paged,
)
"""All lint rules, in the order of the documentation."""
