"""Routes to the outside: read from contracts, and matched with the path of a request.

A path is matched segment by segment, each percent-decoded by itself: a literal before a variable,
and `:verb` at the end, which must be written as it is, before a variable that would take it in.
Sources: google.api.http (the templates), RFC 3986 (paths and percent-encoding).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from accord.contract.names import services as imported_services
from accord.contract.policy_types import ContractError, MethodPolicy
from accord.contract.registry import method_policy
from accord.errors import InvalidArgument
from accord.policies.rate_limit import RatePolicy

MAX_SEGMENTS: Final = 32
"""Of a path."""

_VARIABLE: Final = re.compile(r"\{\w+\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS: Final = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class Route:
    """One RPC as it is reached from outside."""

    method: str
    """Full name as it travels: "/pkg.Service/Method"; the path of gRPC-Web."""
    service: str
    """Of it: "pkg.Service"."""
    verb: str
    """Of HTTP, such as "GET"."""
    path: str
    """Template, such as "/v1/orders/{order_id}:cancel"."""
    scopes: tuple[str, ...]
    """What the caller's token must state, all of it; empty if it is public."""
    public: bool
    """Whether it may be called without a token."""
    rate: RatePolicy | None
    """None: the edge's default."""
    fields: tuple[str, ...]
    """Those of the request that the path gives, in their order."""
    streaming: bool
    """Whether it answers with a stream."""
    policy: MethodPolicy = field(repr=False, hash=False)
    """What its contract says beside the route."""
    request: type[Message] = field(repr=False)
    response: type[Message] = field(repr=False)


def routes_of(*services: str) -> tuple[Route, ...]:
    """The routes that the contracts of services state, by path and verb.

    Args:
        services: full names, "pkg.Service"; none: all services whose generated code is imported.

    Raises:
        KeyError: the process does not know a service.
        ContractError: a contract is wrong, or two routes have the same verb and path.
    """
    found: dict[tuple[str, str], Route] = {}
    for name in services or sorted(set(imported_services())):
        try:
            service = descriptor_pool.Default().FindServiceByName(name)
        except KeyError:
            raise KeyError(f"there is no service {name!r}") from None
        for method in service.methods:
            policy = method_policy(f"/{name}/{method.name}")
            if (edge := policy.edge) is None:
                continue
            route = Route(
                method=policy.method,
                service=name,
                verb=edge.verb,
                path=edge.path,
                scopes=tuple(sorted(edge.scopes)),
                public=edge.public,
                rate=edge.rate,
                fields=tuple(edge.fields),
                streaming=policy.server_streaming,
                policy=policy,
                request=message_factory.GetMessageClass(method.input_type),
                response=message_factory.GetMessageClass(method.output_type),
            )
            other = found.setdefault((edge.verb, _VARIABLE.sub("{}", edge.path)), route)
            if other is not route:
                taken = f"{edge.verb} {edge.path} is {other.method[1:]}'s"
                raise ContractError(service.file.name, policy.method[1:], "edge", taken)
    return tuple(sorted(found.values(), key=lambda each: (each.path, each.verb)))


class _Node:
    """What may follow one beginning of a path."""

    __slots__ = ("ends", "literals", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.ends: dict[str, dict[str, Route]] = {}
        """By ":verb" at its end, "" for none: what is there, by HTTP's verb."""


class Router:
    """Finds the route of a path. O(length of the path) but where literals and variables mix."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            path, _, verb = route.path.partition(":")
            node = self._root
            for segment in path[1:].split("/"):
                if _VARIABLE.fullmatch(segment):
                    node.variable = node = node.variable or _Node()
                else:
                    node = node.literals.setdefault(segment, _Node())
            node.ends.setdefault(verb, {})[route.verb] = route

    def find(self, verb: str, path: str) -> tuple[Route | None, tuple[str, ...], set[str]]:
        """The route of a verb and a path, the values of its variables, and what else is there.

        `path` is as it was sent, percent-encoded. Without a route the last are the verbs that the
        path has; none: there is no such path. Raises InvalidArgument: it is malformed, or steps out
        of a segment by dots.
        """
        others: set[str] = set()
        if path.startswith("/") and path.count("/") <= MAX_SEGMENTS:
            raw = path[1:].split("/")
            head, _, suffix = raw[-1].rpartition(":")
            segments = [_decoded(each) for each in raw]
            ways = [(segments, "")]
            if head:
                ways.insert(0, ([*segments[:-1], _decoded(head)], suffix))
            for way, suffix in ways:
                for ends, values in self._walk(self._root, way, suffix, ()):
                    if verb in ends:
                        return ends[verb], values, others
                    others |= ends.keys()
                if others:
                    break
        return None, (), others

    def _walk(
        self, node: _Node, segments: Sequence[str], suffix: str, values: tuple[str, ...]
    ) -> Iterator[tuple[Mapping[str, Route], tuple[str, ...]]]:
        if not segments:
            if suffix in node.ends:
                yield node.ends[suffix], values
            return
        segment, rest = segments[0], segments[1:]
        if segment in node.literals:
            yield from self._walk(node.literals[segment], rest, suffix, values)
        if node.variable is not None and segment:
            yield from self._walk(node.variable, rest, suffix, (*values, segment))


def _decoded(segment: str) -> str:
    """A segment of a path without percent-encoding. Raises InvalidArgument."""
    text = segment
    if "%" in segment:
        if _BAD_ESCAPE.search(segment):
            raise InvalidArgument("MALFORMED_PATH", message="the path has a broken % escape")
        try:
            text = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise InvalidArgument("MALFORMED_PATH", message="the path is not UTF-8") from None
    if _CONTROL.search(text) or not _DOTS.isdisjoint(re.split(r"[/\\]", text)):
        raise InvalidArgument("MALFORMED_PATH", message="the path steps out, or has controls")
    return text
