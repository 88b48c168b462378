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
    """Services without an option of Accord, once each, until each RPC has one of its own."""
    for service in contracts.own_services:
        if not all(rpc.declared for rpc in service.rpcs):
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
    """Services with a policy, or a policy on each RPC, but without an owner."""
    for service in contracts.own_services:
        stated = service.stated and all(rpc.declared for rpc in service.rpcs)
        if stated and not (service.policy and service.policy.owner.strip()):
            yield Finding(
                service.option_place,
                f"{service.short} has no owner",
                'write `owner: "team-..."` in `option (accord.v1.service)`',
            )
