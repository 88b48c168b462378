"""What a change of the contracts means: every policy, event and error reason, before and after.

Policies are compared as they come out: an option that moves from an RPC to the
defaults of its service is no change.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from accord.contract import MethodPolicy
from accord_checks.breaking_rules import events, idempotency, policies, validation
from accord_checks.breaking_rules.all_rules import EVENT_RULES, RPC_RULES, SERVICE_RULES
from accord_checks.breaking_rules.change import (
    Change,
    ChangeRule,
    Found,
    Risk,
    Versioned,
    accepts,
    differences,
    went,
)
from accord_checks.breaking_rules.grouping import grouped
from accord_checks.contracts import Contracts
from accord_checks.declarations import Event, Place, Rpc
from accord_checks.formatting import shown

# Fields of a policy that are not written under their own name.
_WRITTEN_AS: Final = {"key": "idempotency", "safe": "idempotency"}
_BEGUN: Final = policies.begun.rule, "tell its callers"
_REMOVED: Final = policies.removed.rule, "keep its policy"
_SHAPE: Final = frozenset({"method", "declared", "client_streaming", "server_streaming"})


def compare(then: Contracts, now: Contracts) -> Iterator[Change]:
    """All changes that concern callers and consumers, in no particular order."""
    yield from _services(then, now)
    yield from grouped(_rpcs(then, now))
    yield from _events(then, now)
    yield from validation.changes(then, now)


def _rpcs(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, old in then.rpcs.items():
        new = now.rpcs.get(name)
        if new is not None:
            yield from _rpc(then, old, new)
            continue
        instead = "keep it beside the new one until a new version of its package"
        what = f"{old.short} was taken away"
        yield Change(None, Risk.BREAKING, name, what, instead, "", None, old.place)
    for name, rpc in now.rpcs.items():
        if name not in then.rpcs:
            yield Change(None, Risk.SAFE, name, f"{rpc.short} is new", "", "", rpc.place, None)


def _events(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, was in then.events.items():
        event = now.events.get(name)
        if event is None:
            yield _event_removed(then, was, now)
        else:
            for compared in EVENT_RULES:
                for found in compared.check(was, event):
                    yield _change(then, compared.rule, was, event, found)
    for name, event in now.events.items():
        if name not in then.events:
            what = f"{event.short} is a new event"
            yield Change(None, Risk.SAFE, name, what, "", "", event.place, None)


def _event_removed(then: Contracts, was: Event, now: Contracts) -> Change:
    rule, file, home = events.REMOVED, now.file_of(was.name), now.files.get(was.file.name)
    place, comments = None, []
    if file is not None:
        place = file.place(was.name)
        comments = [file.positions.comment(place.path)]
    elif home is not None:  # the message has gone with its option
        place, comments = Place(home.name, ()), home.positions.head()
    return Change(
        rule,
        rule.risk,
        was.name,
        f"{was.short} is no event any more (it was {was.policy.subject!r})",
        "keep it, and publish it, until nobody consumes it",
        was.policy.subject,
        place,
        was.place,
        accepts(then, comments, rule.id, was.policy.subject),
    )


def _services(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, old in then.services.items():
        new = now.services.get(name)
        if new is None or not (old.stated or new.stated):
            continue
        for compared in SERVICE_RULES:
            for found in compared.check(old, new):
                yield _change(then, compared.rule, old, new, found)
        if old.owner != new.owner:
            what = went("the owner", new.short, old.owner, new.owner, "").what
            yield Change(None, Risk.SAFE, name, what, "", "", new.option_place, old.option_place)


def _rpc(then: Contracts, old: Rpc, new: Rpc) -> Iterator[Change]:
    if old.kind != new.kind:
        what = f"{new.short} was {old.kind} and is {new.kind} now"
        instead = "keep its kind, and add another RPC beside it"
        yield Change(None, Risk.BREAKING, new.name, what, instead, "", new.place, old.place)
        return  # its policies mean something else
    if not (old.declared and new.declared):
        both = old.service.stated and new.service.stated  # or it is said of the service as a whole
        if both and old.declared != new.declared:
            rule, instead = _BEGUN if new.declared else _REMOVED
            stated = "a policy is stated for {}" if new.declared else "no policy is stated for {}"
            found = Found(f"{stated.format(new.short)} now", instead, new.service.short)
            yield _change(then, rule, old, new, found, new.service.option_place)
        return
    # What is invalid counts as not written; that it went is not true, nor what it went to.
    known = {(problem.field, problem.problem) for problem in old.reading.problems}
    problems = (*old.reading.problems, *new.reading.problems)
    wrong = {problem.field.partition(".")[0] for problem in problems}
    for problem in new.reading.problems:
        if (problem.field, problem.problem) in known:
            continue
        option, *inner = problem.field.split(".")
        what = f"{problem.field} of {new.short} is invalid: {problem.problem}"
        instead = "see what `buf lint` says of it"
        places = new.at(option, *inner), old.at(option, *inner)
        shared = _shared(old, new, *places)
        yield Change(None, Risk.BREAKING, new.name, what, instead, "", *places, shared=shared)
    said: set[tuple[str, ...]] = {(option,) for option in wrong}
    for compared in RPC_RULES:
        for found in compared.check(old, new):
            if found.steps[0] not in wrong:
                said.add(tuple(step for step in found.steps if isinstance(step, str)))
                yield _change(then, compared.rule, old, new, found)
    for field in fields(MethodPolicy):
        option = _WRITTEN_AS.get(field.name, field.name)
        was, is_ = getattr(old.policy, field.name), getattr(new.policy, field.name)
        if field.name in _SHAPE or was == is_:
            continue
        if field.name == "stream" and not new.policy.server_streaming:
            continue  # a default for streams, which has no effect here
        for steps, before, after in differences(was, is_):
            if said & {(option,), (option, *steps)} or (
                not steps and any(path[:1] == (option,) for path in said)
            ):
                continue
            said.add((option, *steps))
            name = ".".join((option, *steps))
            values = [shown(value, steps[-1] if steps else option) for value in (before, after)]
            if option == "idempotency":
                values = [idempotency.said(old), idempotency.said(new)]
            what = f"{name} of {new.short} went from {' to '.join(values)}"
            places = new.at(option, *steps), old.at(option, *steps)
            shared = _shared(old, new, *places)
            yield Change(None, Risk.SAFE, new.name, what, "", "", *places, shared=shared)


def _change(
    then: Contracts,
    rule: ChangeRule,
    old: Versioned,
    new: Versioned,
    found: Found,
    shared: Place | None = None,
) -> Change:
    place = new.at(*found.steps)
    before = old.at(*(step for step in found.steps if isinstance(step, str)))
    comments = new.comments
    if isinstance(old, Rpc) and isinstance(new, Rpc):
        if before != old.place and _own(old, before):
            # What it stated itself is gone: it has changed, whatever its service says.
            place = place if _own(new, place) else new.place
        shared = shared or _shared(old, new, place, before)
        # A line above the service accepts what its defaults change, and nothing of an RPC's own.
        comments += new.service.comments if shared is not None else []
    accepted = accepts(then, comments, rule.id, found.value)
    said = found.what, found.instead, found.value
    return Change(rule, rule.risk, new.name, *said, place, before, accepted, shared)


def _shared(old: Rpc, new: Rpc, place: Place, before: Place) -> Place | None:
    """The line that changed if it is that of the service: where it is, or stood."""
    if place != new.place:
        return None if _own(new, place) else place
    return None if _own(old, before) else new.service.option_place


def _own(rpc: Rpc, place: Place) -> bool:
    """Whether it is at the RPC, not in the defaults of its service."""
    return place.path[: len(rpc.path)] == rpc.path
