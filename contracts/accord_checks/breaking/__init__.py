"""What a change of the contracts means: every policy, event and error reason, before and after.

Policies are compared as they come out, defaults filled in: an option that moves from an RPC to the
defaults of its service is no change.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from accord.contract import MethodPolicy
from accord_checks.breaking import access, attempts, events, safety, times, work
from accord_checks.breaking.change import (
    Change,
    ChangeRule,
    EventRule,
    Found,
    Risk,
    RpcRule,
    accepts,
)
from accord_checks.breaking.collapse import collapse
from accord_checks.elements import Event, Place, Rpc
from accord_checks.model import Contracts
from accord_checks.text import differences, shown

RPC_RULES: Final[tuple[RpcRule, ...]] = (
    times.shortened,
    times.lengthened,
    times.attempt,
    times.stream_shortened,
    times.stream_changed,
    attempts.removed,
    attempts.changed,
    attempts.hedged,
    attempts.breaker,
    access.caller_removed,
    access.caller_added,
    access.limited,
    access.depth_lowered,
    access.depth_raised,
    access.floor_lowered,
    safety.weakened,
    safety.demanded,
    safety.compensation,
    safety.saga,
    safety.resume,
    safety.error_removed,
    safety.error_added,
    work.calls,
    work.cache,
)
EVENT_RULES: Final[tuple[EventRule, ...]] = (
    events.subject,
    events.key,
    events.version_lowered,
    events.version_raised,
    events.field_removed,
)

_UNSTATED: Final = """\
service ThingService {
  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}"""
_STATED: Final = """\
service ThingService {
  option (accord.v1.service) = {
    owner: "team-things"
    defaults: {timeout: {seconds: 2}}
  };

  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}"""
POLICY_REMOVED: Final = ChangeRule(
    "POLICY_REMOVED",
    Risk.BREAKING,
    "No service stops stating a policy.",
    "callers lose every timeout, retry and promise that they were given",
    _STATED,
    _UNSTATED,
)
POLICY_BEGUN: Final = ChangeRule(
    "POLICY_BEGUN",
    Risk.RISKY,
    "No service that had no policy begins to state one.",
    "callers are bound to timeouts, keys and lists that they did not know",
    _UNSTATED,
    _STATED,
)
EVENT_REMOVED: Final = ChangeRule(
    "POLICY_EVENT_REMOVED",
    Risk.BREAKING,
    "No event stops being one.",
    "consumers wait for it in vain",
    events.example().strip("\n"),
    "message ThingAdded {\n  string thing_id = 1;\n  string name = 2;\n}",
)
PUBLISHED: Final[tuple[ChangeRule, ...]] = (
    POLICY_REMOVED,
    POLICY_BEGUN,
    *(found.rule for found in RPC_RULES),
    EVENT_REMOVED,
    *(found.rule for found in EVENT_RULES),
)
"""The rules that buf knows: those of breaking and of risky changes."""


# Fields of a policy that are not written under their own name.
_WRITTEN_AS: Final = {"key": "idempotency", "safe": "idempotency"}
_SHAPE: Final = frozenset({"method", "declared", "client_streaming", "server_streaming"})


def compare(then: Contracts, now: Contracts) -> Iterator[Change]:
    """All changes that concern callers and consumers, in no particular order."""
    yield from _services(then, now)
    yield from collapse(_rpcs(then, now))
    yield from _events(then, now)


def _rpcs(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, old in then.rpcs.items():
        new = now.rpcs.get(name)
        if new is not None:
            yield from _rpc(old, new)
            continue
        instead = "keep it, or begin a new package (v2)"
        yield Change(
            None, Risk.BREAKING, name, f"{old.short} was taken away", instead, None, old.place
        )
    for name, rpc in now.rpcs.items():
        if name not in then.rpcs:
            yield Change(None, Risk.SAFE, name, f"{rpc.short} is new", "", rpc.place, None)


def _events(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, was in then.events.items():
        event = now.events.get(name)
        if event is not None:
            yield from _event(was, event)
            continue
        what = f"{was.descriptor.name} is no event any more (it was {was.raw.subject!r})"
        instead = "keep it, and publish it, until nobody consumes it"
        place = now.message_place(name)
        file = now.files.get(was.file.name)
        if place is not None:
            file = now.files[place.file]
            comments = [file.locations.comment(place.path)]
        elif file is not None:  # the message has gone with its option
            place, comments = Place(file.name, ()), file.locations.head()
        else:
            comments = []
        old = [was.file.locations.comment(was.path), *was.file.locations.head()]
        yield Change(
            EVENT_REMOVED,
            EVENT_REMOVED.risk,
            name,
            what,
            instead,
            place,
            was.place,
            accepts(old, comments, EVENT_REMOVED.id),
        )
    for name, event in now.events.items():
        if name not in then.events:
            what = f"{event.descriptor.name} is a new event"
            yield Change(None, Risk.SAFE, name, what, "", event.place, None)


def _services(then: Contracts, now: Contracts) -> Iterator[Change]:
    for name, old in then.services.items():
        new = now.services.get(name)
        if new is None or not (old.stated or new.stated):
            continue
        short = new.descriptor.name
        if old.stated != new.stated:
            if new.stated:
                rule, what, instead = POLICY_BEGUN, "states a policy now", "tell its callers"
            else:
                rule, what, instead = POLICY_REMOVED, "states no policy any more", "keep its policy"
            place, before = new.option_place, old.option_place
            accepted = accepts([old.comment], [new.comment], rule.id)
            yield Change(rule, rule.risk, name, f"{short} {what}", instead, place, before, accepted)
        owners = [found.policy.owner if found.policy else "" for found in (old, new)]
        if owners[0] != owners[1]:
            what = f"the owner of {short} went from {shown(owners[0])} to {shown(owners[1])}"
            yield Change(None, Risk.SAFE, name, what, "", new.option_place, old.option_place)


def _rpc(old: Rpc, new: Rpc) -> Iterator[Change]:
    if old.kind != new.kind:
        what = f"{new.short} was {old.kind} and is {new.kind} now"
        instead = "keep its kind, and add another RPC beside it"
        yield Change(None, Risk.BREAKING, new.name, what, instead, new.place, old.place)
        return  # its policies mean something else
    if not (old.service.stated and new.service.stated):
        return  # said of the service as a whole
    said: set[tuple[str, ...]] = set()
    for check in RPC_RULES:
        for found in check.check(old, new):
            said.add(tuple(step for step in found.steps if isinstance(step, str)))
            yield _change(check.rule, old, new, found)
    for field in fields(MethodPolicy):
        option = _WRITTEN_AS.get(field.name, field.name)
        was, is_ = getattr(old.policy, field.name), getattr(new.policy, field.name)
        if field.name in _SHAPE or was == is_:
            continue
        if field.name == "stream" and not new.policy.server_streaming:
            continue  # a default for streams, which has no effect here
        for steps, before, after in differences(was, is_):
            if said & {(option,), (option, *steps)}:
                continue
            said.add((option, *steps))
            name = ".".join((option, *steps))
            values = [shown(value, steps[-1] if steps else option) for value in (before, after)]
            if option == "idempotency":
                values = [safety.said(old), safety.said(new)]
            what = f"{name} of {new.short} went from {' to '.join(values)}"
            places = new.at(option, *steps), old.at(option, *steps)
            shared = _shared(old, new, *places)
            yield Change(None, Risk.SAFE, new.name, what, "", *places, shared=shared)


def _change(rule: ChangeRule, old: Rpc, new: Rpc, found: Found) -> Change:
    place = new.at(*found.steps)
    before = old.at(*(step for step in found.steps if isinstance(step, str)))
    return Change(
        rule,
        rule.risk,
        new.name,
        found.what,
        found.instead,
        place,
        before,
        accepts(old.comments, new.comments, rule.id),
        _shared(old, new, place, before),
    )


def _shared(old: Rpc, new: Rpc, place: Place, before: Place) -> Place | None:
    """The line that changed if it is that of the service: where it is, or stood."""
    if place != new.place:
        return place
    inherited = before.path[: len(old.path)] != old.path
    return new.service.option_place if inherited else None


def _event(old: Event, new: Event) -> Iterator[Change]:
    for check in EVENT_RULES:
        for found in check.check(old, new):
            place, before = new.place, old.place
            if found.steps:
                place, before = new.at(str(found.steps[0])), old.at(str(found.steps[0]))
            yield Change(
                check.rule,
                check.rule.risk,
                new.name,
                found.what,
                found.instead,
                place,
                before,
                accepts([old.comment], [new.comment], check.rule.id),
            )
