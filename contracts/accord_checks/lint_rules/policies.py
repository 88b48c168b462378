"""That a service states a policy, and who answers for it."""

from collections.abc import Iterator
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.lint_rules.examples import ANYBODY, TIMEOUT, block, service_example
from accord_checks.lint_rules.rule import Finding, rule

_DEFAULTS: Final = block("defaults", TIMEOUT, ANYBODY)


@rule(
    "ACCORD_POLICY_STATED",
    purpose="Every service states a policy.",
    why="nobody knows how long its RPCs may take, who may call them or what a repeat does",
    bad=service_example(),
    good=service_example('owner: "team-things"', _DEFAULTS),
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """Services without any option of Accord, once each."""
    for service in contracts.own_services:
        if service.rpcs and not service.stated:
            yield Finding(
                service.place,
                f"{service.short} states no policy",
                'import "accord/v1/policy.proto" and write `option (accord.v1.service) = {owner: '
                '"..." defaults: {timeout: {seconds: 2} allow: ["*"]}};`',
            )


@rule(
    "ACCORD_OWNER_STATED",
    purpose="Every service that states a policy names its owner.",
    why="nobody can be asked before the contract changes",
    bad=service_example(_DEFAULTS),
    good=service_example('owner: "team-things"', _DEFAULTS),
)
def owned(contracts: Contracts) -> Iterator[Finding]:
    """Services with a policy but without an owner."""
    for service in contracts.own_services:
        if service.stated and not (service.policy and service.policy.owner.strip()):
            yield Finding(
                service.option_place,
                f"{service.short} has no owner",
                'write `owner: "team-..."` in `option (accord.v1.service)`',
            )
