"""What changed between two versions of contracts, and whom it concerns."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeAlias, TypeVar

from accord_checks.contracts import Contracts
from accord_checks.declarations import Event, Place, Rpc, Service
from accord_checks.formatting import shown


class Risk(Enum):
    """What a change means for those who call or consume."""

    BREAKING = "breaking"
    """What worked may fail, or what was guarded no longer is."""
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
    value: str
    """What an acceptance of it has to name: "timeout 10 s to 5 s"."""
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
    value: str
    """What an acceptance of it has to name; empty if no comment accepts it."""
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
        """The change in one line: what, why it matters, what to do, how to accept it."""
        why = f": {self.rule.why}" if self.rule is not None else ""
        instead = f"; {self.instead}" if self.instead else ""
        meant = ""
        if self.rule is not None and not self.accepted:
            meant = f", or accept it: `// {_ACCEPTS} {self.rule.id} {self.value}: <why>`"
        return " ".join(f"{self.what}{why}{instead}{meant}".split())


_ACCEPTS: Final = "buf:lint:ignore"

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


def went(
    name: str, of: str, then: object, now: object, instead: str, *steps: str, called: str = ""
) -> Found:
    """A value before and after: "the timeout of Get went from 5 s to 2 s".

    `name` is its own, "retry.max_attempts"; the sentence may have it `called` otherwise.
    """
    was, is_ = (shown(value, steps[-1] if steps else name) for value in (then, now))
    what = f"{called or name} of {of} went from {was} to {is_}"
    return Found(what, instead, f"{name} {was} to {is_}", steps)


def less(one: float | None, other: float | None) -> bool:
    """None is no bound, which is the greatest."""
    return (math.inf if one is None else one) < (math.inf if other is None else other)


def raised(now: float | None, then: float | None) -> bool:
    """A greater bound than before, but a bound; see `gone`."""
    return less(then, now) and not gone(now, then)


def gone(now: object, then: object) -> bool:
    """No bound any more: a policy that is off, or a number without end, or as good as that."""
    unbounded = (None, math.inf)
    if now in unbounded or then in unbounded:
        return then not in unbounded
    return isinstance(now, (int, float)) and isinstance(then, (int, float)) and far(now, then)


def far(now: float, then: float) -> bool:
    """More than ten times as great: whatever relied on the bound that was finds none."""
    return abs(now) > 10 * abs(then) > 0


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
        yield went(path, new.short, then, now, instead, *path.split("."), called=name)


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
        yield went(".".join(path), new.short, was, is_, instead, *path)


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


def accepts(then: Contracts, now: Iterable[str], rule: str, value: str) -> bool:
    """Whether a comment says that a change is meant: a new line that names it, with a reason.

    Such as `buf:lint:ignore RULE timeout 10 s to 5 s: why`. A line that was there before, wherever,
    accepted an earlier change, not this one; where the version before was kept without its
    comments, the values tell the two apart. `buf` knows such comments for lint only; for a change
    of policy the plugin obeys them itself.
    """
    begin = f"{_ACCEPTS} {rule} {' '.join(value.split())}:"
    wanted = re.compile(rf"{re.escape(begin)}.*\w")
    lines = {" ".join(line.split()) for comment in now for line in comment.splitlines()}
    return any(wanted.match(line) for line in lines - then.comment_lines)
