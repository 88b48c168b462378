"""Routes to the outside: read from contracts, and matched with the path of a request.

A path is matched segment by segment, each percent-decoded by itself: a literal before a variable,
and `:verb` at the end, which must be written as it is, before a variable that would take it in.
Sources: google.api.http (the templates), RFC 3986 (paths and percent-encoding).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from accord.contract.names import services as imported_services
from accord.contract.policy_types import ContractError, MethodPolicy
from accord.contract.registry import method_policy
from accord.errors import InvalidArgument
from accord.policies.rate_limit import RatePolicy
from accord.v1 import edge_pb2

MAX_SEGMENTS: Final = 32
"""Of a path."""

_TEMPLATE: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~-]+|\{\w+\}))+(?::[A-Za-z][A-Za-z0-9]*)?", re.A)
_VARIABLE: Final = re.compile(r"\{(\w+)\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS: Final = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class Route:
    """One RPC as it is reached from outside."""

    method: str
    """Full name as it travels: "/pkg.Service/Method"; the path of gRPC-Web."""
    service: str
    """"pkg.Service"."""
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
    streaming: bool
    """Whether it answers with a stream."""
    policy: MethodPolicy = field(repr=False, hash=False)
    """What its contract says beside the route."""
    request: type[Message] = field(repr=False)
    response: type[Message] = field(repr=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the request that the path gives, in their order."""
        return tuple(_VARIABLE.findall(self.path))


def routes_of(*services: str) -> tuple[Route, ...]:
    """The routes that the contracts of services state, by verb and path.

    Args:
        services: full names, "pkg.Service"; none: all services whose generated code is imported.

    Raises:
        KeyError: the process does not know a service.
        ContractError: a route cannot be served, or two have the same verb and path.
    """
    found: dict[tuple[str, str], Route] = {}
    for name in services or sorted(set(imported_services())):
        try:
            service = descriptor_pool.Default().FindServiceByName(name)
        except KeyError:
            raise KeyError(f"there is no service {name!r}") from None
        for method in service.methods:
            if not method.GetOptions().HasExtension(edge_pb2.edge):
                continue
            route = _read(method)
            other = found.setdefault((route.verb, _VARIABLE.sub("{}", route.path)), route)
            if other is not route:
                taken = f"{route.verb} {route.path} is {other.method[1:]}'s"
                raise _wrong(method, taken)
    return tuple(sorted(found.values(), key=lambda each: (each.path, each.verb)))


def _read(method: MethodDescriptor) -> Route:
    option = method.GetOptions().Extensions[edge_pb2.edge]
    verb = option.WhichOneof("pattern")
    path: str = getattr(option, verb) if verb else ""
    if not _TEMPLATE.fullmatch(path) or path.count("/") > MAX_SEGMENTS:
        raise _wrong(method, f"{path!r} is no path such as '/v1/things/{{thing_id}}'")
    if method.client_streaming:
        raise _wrong(method, "a stream of requests has no route")
    if option.public == bool(option.scopes):
        raise _wrong(method, "it is either public or has scopes")
    if len(names := _VARIABLE.findall(path)) != len(set(names)):
        raise _wrong(method, f"{path!r} names a field twice")
    for name in names:
        known = method.input_type.fields_by_name.get(name)
        if known is None or known.is_repeated or known.cpp_type in (
            FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_ENUM
        ):  # fmt: skip
            raise _wrong(method, f"{{{name}}} is no string, number or bool of the request")
    per_second, rate = option.rate.per_second, None
    if option.HasField("rate"):
        if not 0 < per_second < math.inf:
            raise _wrong(method, "a rate has no calls per second")
        rate = RatePolicy(per_second, option.rate.burst or math.ceil(per_second))
    service = method.containing_service.full_name
    return Route(
        method=f"/{service}/{method.name}",
        service=service,
        verb=str(verb).upper(),
        path=path,
        scopes=tuple(sorted(option.scopes)),
        public=option.public,
        rate=rate,
        streaming=method.server_streaming,
        policy=method_policy(f"/{service}/{method.name}"),
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
    )


def _wrong(method: MethodDescriptor, problem: str) -> ContractError:
    service = method.containing_service
    name = f"{service.full_name}/{method.name}"
    return ContractError(service.file.name, name, "(accord.v1.edge)", problem)


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
