"""What `accord.contract` refuses at start-up, as findings."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.declarations import Place
from accord_checks.lint_rules.rule import Finding

# What rules of their own say: of these options all, ...
_COVERED: Final = frozenset(
    {"timeout", "attempt_timeout", "retry", "floor", "resume", "calls", "compensation", "edge"}
)
# ... and of others this much. They judge what is written, element by element.
_COVERED_FIELDS: Final = frozenset({"hedge", "saga.steps", "cache", "cache.invalidated_by"})

# A problem that goes on after the name of the field, and is not a sentence of its own.
_VERB: Final = re.compile(r"(must|is|contains|cannot|contradicts) ")


def startup_errors(
    contracts: Contracts,
    instead: str,
    *options: str,
    specific: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Finding]:
    """What is refused of some options of a policy; without any, of all that no other rule covers.

    What to write is `instead`, unless a field has something `specific`.
    A default of a service that is wrong for each of its RPCs is found once.
    """
    seen: set[tuple[Place, str]] = set()
    for rpc in contracts.own_rpcs:
        for problem in rpc.reading.problems:
            steps = problem.field.split(".")
            covered = steps[0] in _COVERED or problem.field in _COVERED_FIELDS
            if steps[0] not in options if options else covered:
                continue
            place = rpc.at(*steps)
            if (place, problem.problem) not in seen:
                seen.add((place, problem.problem))
                joined = " " if _VERB.match(problem.problem) else ": "
                what = f"{problem.field} of {rpc.short}{joined}{problem.problem}"
                yield Finding(place, what, specific.get(problem.field, instead))
