"""Routes to the outside: who relies on them, and what they protect."""

from collections.abc import Iterator
from typing import Final

from accord.contract import EdgePolicy
from accord_checks.breaking_rules.change import Found, Risk, change_rule, moved
from accord_checks.breaking_rules.limits import lower
from accord_checks.declarations import Rpc


def _example(*options: str, path: str = 'get: "/v1/things"') -> str:
    route = f"  option (accord.v1.edge) = {{{' '.join((path, *options))}}};\n" if path else ""
    return (
        "rpc GetThing(GetThingRequest) returns (GetThingResponse) {\n"
        f"  option idempotency_level = NO_SIDE_EFFECTS;\n{route}"
        "  option (accord.v1.policy) = {timeout: {seconds: 2}};\n}"
    )


_READ: Final = 'scopes: ["things:read"]'
_BOTH: Final = 'scopes: ["things:read", "things:list"]'


def _shown(edge: EdgePolicy) -> str:
    return f"{edge.verb} {edge.path}"


@change_rule(
    "POLICY_ROUTE_REMOVED",
    Risk.BREAKING,
    purpose="No RPC that is reached from outside stops being so.",
    why="callers outside of the mesh, whom nobody knows, get 404",
    before=_example(_READ),
    after=_example(path=""),
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """The option is taken away."""
    was = old.policy.edge
    if was is not None and new.policy.edge is None:
        what = f"{_shown(was)} leads no longer to {new.short}"
        yield Found(what, "keep it, and deprecate the RPC", _shown(was), ("edge",))


@change_rule(
    "POLICY_ROUTE_CHANGED",
    Risk.BREAKING,
    purpose="No route gets another verb or another path.",
    why="callers outside of the mesh, whom nobody knows, get 404 or 405",
    before=_example(_READ),
    after=_example(_READ, path='get: "/v2/things"'),
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Also the name of a field in the path: its value would be taken for another's."""
    was, edge = old.policy.edge, new.policy.edge
    if was is not None and edge is not None and _shown(was) != _shown(edge):
        what = f"the route of {new.short} went from {_shown(was)} to {_shown(edge)}"
        value = f"{_shown(was)} to {_shown(edge)}"
        yield Found(
            what, "add an RPC with the new one beside it", value, ("edge", edge.verb.lower())
        )


@change_rule(
    "POLICY_ROUTE_ADDED",
    Risk.RISKY,
    purpose="No RPC is opened to callers outside of the mesh.",
    why="whoever has a token with its scopes, or nobody knows who, can reach it",
    before=_example(path=""),
    after=_example(_READ),
)
def added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """The option is new."""
    edge = new.policy.edge
    if edge is not None and old.policy.edge is None:
        needs = "no token" if edge.public else ", ".join(sorted(edge.scopes))
        what = f"{_shown(edge)} leads to {new.short} now, and needs {needs}"
        instead = "ask whoever answers for its data"
        yield Found(what, instead, _shown(edge), ("edge", edge.verb.lower()))


@change_rule(
    "POLICY_SCOPE_ADDED",
    Risk.BREAKING,
    purpose="No route needs a scope that it did not need.",
    why="tokens without it are refused with 403",
    before=_example(_READ),
    after=_example(_BOTH),
)
def scope_added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A further scope; the first one of what was public."""
    was, edge = old.policy.edge, new.policy.edge
    if was is not None and edge is not None and (more := sorted(edge.scopes - was.scopes)):
        what = f"{_shown(edge)} of {new.short} needs {', '.join(more)} now"
        instead = "give it to whoever calls, then write it"
        yield Found(what, instead, ", ".join(more), ("edge", "scopes"))


@change_rule(
    "POLICY_SCOPE_REMOVED",
    Risk.BREAKING,
    purpose="No route can do without a scope that it needed.",
    why="whoever was refused gets in",
    before=_example(_BOTH),
    after=_example(_READ),
)
def scope_removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """One of several, another in its place, or all, for everybody."""
    was, edge = old.policy.edge, new.policy.edge
    if was is not None and edge is not None and (gone := sorted(was.scopes - edge.scopes)):
        needs = " and is public" if edge.public else ""
        what = f"{_shown(edge)} of {new.short} no longer needs {', '.join(gone)}{needs}"
        step = "public" if edge.public else "scopes"
        yield Found(what, "ask whoever answers for its data", ", ".join(gone), ("edge", step))


@change_rule(
    "POLICY_ROUTE_RATE_LOWERED",
    Risk.BREAKING,
    purpose="No rate of a route is lowered.",
    why="users who called that often get 429",
    before=_example(_READ, "rate: {per_second: 10}"),
    after=_example(_READ, "rate: {per_second: 1}"),
)
def rate_lowered(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of a rate that was there; one that is taken away is said by another rule."""
    for path in ("edge.rate.per_second", "edge.rate.burst"):
        yield from moved(old, new, path, lower, "see that no user needs more")
