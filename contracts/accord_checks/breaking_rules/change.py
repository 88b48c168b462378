"""What changed between two versions of contracts, and whom it concerns."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from accord_checks.declarations import Event, Place, Rpc, Service
from accord_checks.formatting import shown


class Risk(Enum):
    """What a change means for those who call or consume."""

    BREAKING = "breaking"
    """What worked may fail."""
    RISKY = "risky"
    """What worked works, but differently: load, latency or reach are not what they were."""
    SAFE = "safe"
    """Nobody has to do anything."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule says about one RPC or event."""

    what: str
    """What changed, naming the element, old and new value."""
    instead: str
    """What to do."""
    steps: tuple[str | int, ...] = ()
    """Which field of the policy it is; none for the payload of an event."""


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """One kind of change to a policy or an event."""

    id: str
    risk: Risk
    purpose: str
    """A sentence: what it asks for."""
    why: str
    """What the change means, as the middle of a sentence."""
    before: str
    """A part of a contract, and ..."""
    after: str
    """... what it was changed to."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Its categories in buf."""
        return ("POLICY", "POLICY_STRICT") if self.risk is Risk.BREAKING else ("POLICY_STRICT",)


@dataclass(frozen=True, slots=True)
class Change:
    """One change."""

    rule: ChangeRule | None
    """None for a change that is safe, and for one that buf itself finds."""
    risk: Risk
    element: str
    """Full name of the RPC, service or event."""
    what: str
    instead: str
    place: Place | None
    """Where it is now; None if it is gone."""
    before: Place | None
    """Where it was; None if it is new."""
    accepted: bool = False
    """Whether the contract says that it is meant, see `accepts`."""
    shared: Place | None = None
    """Where to show it if other RPCs changed in the same way, by the same line of the contract."""

    @property
    def message(self) -> str:
        """The change in one line: what, why it matters, what to do."""
        why = f": {self.rule.why}" if self.rule is not None else ""
        instead = f"; {self.instead}" if self.instead else ""
        return " ".join(f"{self.what}{why}{instead}".split())


Versioned = TypeVar("Versioned", Service, Rpc, Event)
Check: TypeAlias = Callable[[Versioned, Versioned], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class Comparison(Generic[Versioned]):
    """A rule with the function that compares two versions of a service, an RPC or an event."""

    rule: ChangeRule
    check: Check[Versioned]


def change_rule(
    id: str,  # noqa: A002
    risk: Risk,
    *,
    purpose: str,
    why: str,
    before: str,
    after: str,
) -> Callable[[Check[Versioned]], Comparison[Versioned]]:
    """Make a rule of the function that compares two versions."""
    found = ChangeRule(id, risk, purpose, why, before.strip("\n"), after.strip("\n"))
    return lambda check: Comparison(found, check)


def went(what: str, then: object, now: object, name: str = "") -> str:
    """A value before and after: "the timeout of Get went from 5 s to 2 s"."""
    return f"{what} went from {shown(then, name)} to {shown(now, name)}"


def less(one: float | None, other: float | None) -> bool:
    """None is no bound, which is the greatest."""
    return (math.inf if one is None else one) < (math.inf if other is None else other)


def moved(
    old: Rpc | Event,
    new: Rpc | Event,
    path: str,
    wrong: Callable[[Any, Any], bool],
    instead: str,
    name: str = "",
) -> Iterator[Found]:
    """One value of a policy, if it is `wrong` now, given what it was.

    It is called `name`, or as its path is written: "floor.timeout".
    """
    now, then = (_value(version.policy, path) for version in (new, old))
    if wrong(now, then):
        steps = tuple(path.split("."))
        what = went(f"{name or path} of {new.short}", then, now, steps[-1])
        yield Found(what, instead, steps)


def _value(policy: object, path: str) -> Any:
    """What a path leads to; None where a part of it is not stated."""
    for name in path.split("."):
        policy = policy and getattr(policy, name)
    return policy


def parts(old: Rpc, new: Rpc, option: str, instead: str, *, added: bool = False) -> Iterator[Found]:
    """What differs in one option of an RPC, part by part; one that is new only if `added`."""
    then, now = getattr(old.policy, option), getattr(new.policy, option)
    if then is None and not added:
        return
    for steps, was, is_ in differences(then, now):
        path = (option, *steps)
        yield Found(went(f"{'.'.join(path)} of {new.short}", was, is_, path[-1]), instead, path)


def differences(was: object, now: object) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Two values if they differ, or the fields in which they do if both have the same ones."""
    if not is_dataclass(now) or isinstance(now, type) or type(was) is not type(now):
        if was != now:
            yield (), was, now
        return
    for field in fields(now):
        before, after = getattr(was, field.name), getattr(now, field.name)
        if before != after:
            yield (field.name,), before, after


def accepts(before: Iterable[str], now: Iterable[str], rule: str) -> bool:
    """Whether a comment says that a change is meant: a new line `buf:lint:ignore RULE`.

    A line that was there before accepted an earlier change, not this one. `buf` knows such comments
    for lint only; for a change of policy the plugin obeys them itself.
    """
    return not _accepting(now, rule) <= _accepting(before, rule)


def _accepting(comments: Iterable[str], rule: str) -> set[str]:
    wanted = re.compile(rf"\s*buf:lint:ignore\s+{rule}(?=[\s:]|$)")
    lines = (line for comment in comments for line in comment.splitlines())
    return {line.strip() for line in lines if wanted.match(line)}
