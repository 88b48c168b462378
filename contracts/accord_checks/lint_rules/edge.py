"""Routes to the outside: `(accord.v1.edge)`."""

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor as pb

from accord.contract import EdgePolicy
from accord_checks.contracts import Contracts
from accord_checks.declarations import Rpc
from accord_checks.lint_rules.examples import ANYBODY, KEYED, READS, TIMEOUT, rpc_example
from accord_checks.lint_rules.rule import Finding, rule
from accord_checks.lint_rules.startup_errors import startup_errors

_EDGE: Final = "/edge"
"""End of the identity of the process that callers from outside reach."""

_SCOPED: Final = 'scopes: ["things:read"]'
_RATE: Final = "rate: {per_second: 5}"
_WELL_KNOWN: Final = re.compile(
    r"google\.protobuf\.(Timestamp|Duration|FieldMask|(Bool|Bytes|Double|Float|U?Int(32|64)|String)"
    r"Value)"
)
"""Messages whose JSON form is one string, number or bool."""


def _reading(path: str, *more: str, allow: str = ANYBODY, name: str = "GetThing") -> str:
    return rpc_example(name, TIMEOUT, allow, level=READS, edge=(f'get: "{path}"', *more))


_GOOD: Final = _reading("/v1/things/{thing_id}", _SCOPED)


@rule(
    "ACCORD_ROUTE_VALID",
    purpose="A route has a path with fields of the request, a verb that fits, and scopes or none.",
    why="a server refuses to start with it",
    bad=_reading("/v1/things/{id}", _SCOPED),
    good=_GOOD,
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    scopes = 'write `scopes: ["things:read"]`, or `public: true` for callers without a token'
    return startup_errors(
        contracts,
        'write a path such as "/v1/things/{thing_id}:cancel", and POST for what changes something',
        "edge",
        specific={
            "edge": 'write `get: "/v1/things"` for an RPC of one request, or take it away',
            "edge.scopes": scopes,
            "edge.public": scopes,
            "edge.rate.per_second": "write `rate: {per_second: 5}`",
        },
    )


def _routed(contracts: Contracts) -> Iterator[tuple[Rpc, EdgePolicy]]:
    return ((rpc, rpc.policy.edge) for rpc in contracts.own_rpcs if rpc.policy.edge is not None)


@rule(
    "ACCORD_ROUTE_UNIQUE",
    purpose="No two RPCs have the same verb and path, whatever the fields in it are called.",
    why="only one of the two is ever reached",
    bad=_GOOD + _reading("/v1/things/{thing_id}", _SCOPED, name="GetPart"),
    good=_GOOD + _reading("/v1/parts/{thing_id}", _SCOPED, name="GetPart"),
)
def unique(contracts: Contracts) -> Iterator[Finding]:
    """Paths that differ in nothing but names of fields."""
    taken: dict[tuple[str, str], str] = {}
    for rpc, edge in _routed(contracts):
        first = taken.setdefault((edge.verb, re.sub(r"\{\w+\}", "{}", edge.path)), rpc.name)
        if first != rpc.name:
            yield Finding(
                rpc.at("edge", edge.verb.lower()),
                f"{edge.verb} {edge.path} of {rpc.short} is that of {first}",
                "write another path",
            )


@rule(
    "ACCORD_ROUTE_QUERY",
    purpose="What GET and DELETE ask for fits into the path and the parameters of a query.",
    why="a field that is a message has no form there",
    bad=_reading("/v1/things", _SCOPED)
    + "message GetThingRequest {\n  Filter filter = 1;\n}\nmessage Filter {}\n",
    good=_reading("/v1/things", _SCOPED) + "message GetThingRequest {\n  int32 page_size = 1;\n}\n",
)
def query(contracts: Contracts) -> Iterator[Finding]:
    """Messages, also lists and maps of them; not those that are a string in JSON, as Timestamp."""
    for rpc, edge in _routed(contracts):
        if edge.verb not in ("GET", "DELETE"):
            continue
        for field in rpc.descriptor.input_type.fields:
            if not _fits(field):
                yield Finding(
                    rpc.at("edge", edge.verb.lower()),
                    f"{field.name}, which {edge.verb} {edge.path} takes, is a message",
                    "write its fields into the request itself, or POST",
                )


def _fits(field: pb.FieldDescriptor) -> bool:
    return field.message_type is None or bool(_WELL_KNOWN.fullmatch(field.message_type.full_name))


@rule(
    "ACCORD_ROUTE_CALLER",
    purpose='The edge, "spiffe://<trust domain>/edge", may call what has a route.',
    why="whoever calls from outside is refused with PERMISSION_DENIED",
    bad=_reading("/v1/things", _SCOPED, allow='allow: ["spiffe://example.org/orders"]'),
    good=_reading("/v1/things", _SCOPED, allow='allow: ["spiffe://example.org/edge"]'),
)
def caller(contracts: Contracts) -> Iterator[Finding]:
    """Lists of callers without the edge."""
    for rpc, _ in _routed(contracts):
        allow = rpc.policy.allow
        if allow and not any(name == "*" or name.endswith(_EDGE) for name in allow):
            yield Finding(
                rpc.at("allow", inherited=False),
                f"{rpc.short} has a route, and the edge may not call it",
                'write "spiffe://<trust domain>/edge" into `allow`, or take the route away',
            )


@rule(
    "ACCORD_ROUTE_RATE",
    purpose="What everybody may change without a token has a rate.",
    why="anybody can fill a database",
    bad=rpc_example(
        "AddThing", TIMEOUT, KEYED, ANYBODY, edge=('post: "/v1/things"', "public: true")
    ),
    good=rpc_example(
        "AddThing", TIMEOUT, KEYED, ANYBODY, edge=('post: "/v1/things"', "public: true", _RATE)
    ),
)
def rate(contracts: Contracts) -> Iterator[Finding]:
    """Public routes of RPCs that may change something."""
    for rpc, edge in _routed(contracts):
        if edge.public and edge.rate is None and not rpc.reads:
            yield Finding(
                rpc.at("edge", "public"),
                f"everybody may call {rpc.short}, which may change something, and as often as they "
                "like",
                "write `rate: {per_second: 1 burst: 20}`",
            )
