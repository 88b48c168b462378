"""What `accord.contract` refuses at start-up, as findings."""

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.declarations import Place
from accord_checks.lint_rules.rule import Finding

TIMEOUTS: Final = frozenset({"timeout", "attempt_timeout"})
RETRIES: Final = frozenset({"retry"})
FLOORS: Final = frozenset({"floor"})
RESUMING: Final = frozenset({"resume"})
# Judged from what is written, element by element, by the rules of their own modules.
ELSEWHERE: Final = frozenset(
    {"hedge", "calls", "compensation", "saga.steps", "cache", "cache.invalidated_by"}
)

# Of these, that only: what is wrong with a part of them is said of any policy.
_WHOLE: Final = frozenset({"hedge", "cache"})

# A problem that goes on after the name of the field, and is not a sentence of its own.
_VERB: Final = re.compile(r"(must|is|contains|cannot|contradicts) ")


def problems(
    contracts: Contracts,
    fields: Collection[str],
    instead: str,
    *,
    specific: Mapping[str, str] = MappingProxyType({}),
    others: bool = False,
) -> Iterator[Finding]:
    """The refusals of some fields of a policy, or of all `others`.

    What to write is `instead`, unless a field has something `specific`.
    A default of a service that is wrong for each of its RPCs is found once.
    """
    seen: set[tuple[Place, str]] = set()
    for rpc in contracts.own_rpcs:
        for problem in rpc.reading.problems:
            steps = problem.field.split(".")
            named = problem.field in fields or (steps[0] in fields and steps[0] not in _WHOLE)
            if named == others:
                continue
            place = rpc.at(*steps)
            if (place, problem.problem) not in seen:
                seen.add((place, problem.problem))
                joined = " " if _VERB.match(problem.problem) else ": "
                what = f"{problem.field} of {rpc.short}{joined}{problem.problem}"
                yield Finding(place, what, specific.get(problem.field, instead))
