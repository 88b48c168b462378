"""All lint rules, in the order of the documentation: module by module, as they stand there."""

from typing import Final

from accord_checks.lint_rules import (
    cache,
    callers,
    calls,
    compensation,
    edge,
    events,
    idempotency,
    message_size,
    policies,
    policy_values,
    retries,
    sagas,
    streams,
    timeouts,
)
from accord_checks.lint_rules.rule import Rule

_MODULES: Final = (
    policies,
    callers,
    policy_values,
    timeouts,
    retries,
    idempotency,
    compensation,
    sagas,
    calls,
    streams,
    events,
    cache,
    edge,
    message_size,
)
LINT_RULES: Final = tuple(
    found for module in _MODULES for found in vars(module).values() if isinstance(found, Rule)
)
