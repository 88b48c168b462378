"""What a lint rule is, what it finds, and where it says what is missing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from accord_checks.contracts import Contracts
from accord_checks.declarations import Place, Rpc


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake."""

    place: Place
    what: str
    """What is wrong, naming the element."""
    instead: str
    """What to write."""


Check: TypeAlias = Callable[[Contracts], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that contracts keep to."""

    id: str
    purpose: str
    """A sentence: what it asks for."""
    why: str
    """What goes wrong otherwise, as the middle of a sentence."""
    bad: str
    """A part of a contract that it refuses, see `examples`."""
    good: str
    """The same part, put right."""
    check: Check

    def message(self, finding: Finding) -> str:
        """The finding in one line: what is wrong, why it matters, what to write instead."""
        return " ".join(f"{finding.what}: {self.why}; {finding.instead}".split())


def rule(id: str, *, purpose: str, why: str, bad: str, good: str) -> Callable[[Check], Rule]:  # noqa: A002
    """Make a rule of the function that finds its mistakes."""
    return lambda check: Rule(id, purpose, why, bad.strip("\n"), good.strip("\n"), check)


def once(check: Check) -> Check:
    """The check without repeats: a mistake in a service's defaults is one, not one for each RPC."""
    return lambda contracts: iter(dict.fromkeys(check(contracts)))


def unstated(
    contracts: Contracts, among: Callable[[Rpc], bool], states: Callable[[Rpc], bool]
) -> Iterator[tuple[Place, str]]:
    """Who does not state something, of some RPCs of each service: where to say it, and its name.

    Each RPC at its own place; a service whose RPCs all lack it, once: it needs a default.
    """
    for service in contracts.own_services:
        asked = [rpc for rpc in service.rpcs if rpc.declared and among(rpc)]
        missing = [rpc for rpc in asked if not states(rpc)]
        if service.policy is not None and len(missing) > 1 and len(missing) == len(asked):
            yield service.option_place, f"any RPC of {service.short}"
        else:
            yield from ((rpc.place, rpc.short) for rpc in missing)
