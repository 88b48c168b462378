"""What a lint rule is, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from accord_checks.elements import Place
from accord_checks.model import Contracts


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
    """A part of a contract that it refuses, see `example.whole`."""
    good: str
    """The same part, put right."""
    check: Check

    def message(self, finding: Finding) -> str:
        """The finding in one line: what is wrong, why it matters, what to write instead."""
        return " ".join(f"{finding.what}: {self.why}; {finding.instead}".split())


def rule(id: str, *, purpose: str, why: str, bad: str, good: str) -> Callable[[Check], Rule]:  # noqa: A002
    """Make a rule of the function that finds its mistakes."""
    return lambda check: Rule(id, purpose, why, bad.strip("\n"), good.strip("\n"), check)
