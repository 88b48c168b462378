"""Where calls to a target go: its versions, their shares, and who is sent elsewhere.

{"orders": {
    "versions": {"v1": "ipv4:10.0.0.7:9051,10.0.0.8:9051", "v2": "dns:///orders-v2:9051"},
    "weights": {"v1": 95, "v2": 5},
    "rules": [{"identities": ["spiffe://shop.internal/edge"], "weights": {"v2": 1},
               "fallback": ["v1"]}],
    "draining": ["10.0.0.8:9051"]}}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from accord.contract.names import meant

MAX_DOCUMENT: Final = 1024 * 1024
"""Characters of the largest file of routes."""

MAX_WEIGHT: Final = 1_000_000

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HEADER: Final = re.compile(r"[a-z0-9_.-]{1,100}")


class RouteError(ValueError):
    """What is wrong with a route, in one line."""


def _none() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint of a target with several versions is left out, for 30 s at first.

    gRPC counts each status but OK. Where there is one version, it is as in
    `accord.client.service_config`.
    """

    percent: int = 45
    """Least percent of failures: 1 to 100."""
    calls: int = 5
    """Least calls to the endpoint in an interval, else it is not judged: 1 and more."""
    interval: float = 2.0
    """Seconds between two looks: 0.1 to 60."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that go elsewhere: those that match each of `identities` and `headers` that is said."""

    weights: Mapping[str, int]
    identities: frozenset[str] = frozenset()
    """SPIFFE ids of callers; empty: any."""
    headers: Mapping[str, str] = field(default_factory=_none)
    """Metadata, by its key, and its whole value."""
    fallback: tuple[str, ...] = ()
    """Versions that are called when no endpoint of those in `weights` is left."""

    def __str__(self) -> str:
        headers = [f"{key}: {value}" for key, value in sorted(self.headers.items())]
        to = [f"{version} {weight}" for version, weight in sorted(self.weights.items())]
        return f"{', '.join([*sorted(self.identities), *headers]) or 'all'} to {', '.join(to)}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls to one target go. The first rule that matches wins; else `weights` hold."""

    versions: Mapping[str, str]
    """By version its addresses, as in the `targets` of a mesh."""
    weights: Mapping[str, int] = field(default_factory=_none)
    """Shares, of any sum. A version that is not in it gets none."""
    rules: tuple[Rule, ...] = ()
    fallback: tuple[str, ...] = ()
    """As in `Rule`."""
    draining: frozenset[str] = frozenset()
    """Endpoints, "10.0.0.7:9051", that get no new calls; what is open on them goes on."""
    ejection: Ejection = Ejection()
    server: str = ""
    """The SPIFFE id of its servers; "": that of the target's name in the caller's trust domain."""
    health: str | None = None
    """The service whose health is watched, "" for the whole server; None: nobody watches."""

    def __post_init__(self) -> None:
        for version in self.versions:
            if not _NAME.fullmatch(version):
                raise RouteError(f"versions: {version!r} is no name")
        if not self.versions:
            raise RouteError("versions: there is none")
        if not self.weights:
            if len(self.versions) > 1:
                raise RouteError("weights: there are none")
            object.__setattr__(self, "weights", {next(iter(self.versions)): 1})
        self._check(self.weights, self.fallback)
        for rule in self.rules:
            self._check(rule.weights, rule.fallback, "rules: ")
            for key in rule.headers:
                if not _HEADER.fullmatch(key) or key.endswith("-bin"):
                    raise RouteError(f"rules: headers: {key!r} is no key of metadata in text")
        ejection = self.ejection
        if not (1 <= ejection.percent <= 100 and ejection.calls >= 1 and
                0.1 <= ejection.interval <= 60):  # fmt: skip
            raise RouteError("ejection: percent 1 to 100, calls from 1, interval 0.1 to 60")

    def _check(self, weights: Mapping[str, int], fallback: tuple[str, ...], at: str = "") -> None:
        for version in (*weights, *fallback):
            if version not in self.versions:
                hint = meant(version, self.versions)
                raise RouteError(f"{at}{version!r} is none of the versions{hint}")
        if any(type(each) is not int or not 0 <= each <= MAX_WEIGHT for each in weights.values()):
            raise RouteError(f"{at}weights: must be whole numbers from 0 to {MAX_WEIGHT}")
        if not any(weights.values()):
            raise RouteError(f"{at}weights: all are 0")

    def split_for(self, identity: str) -> list["Split"]:
        """The splits that calls of a caller may meet, in order; the last takes all."""
        rules = [each for each in self.rules if not each.identities or identity in each.identities]
        found = [Split(each.weights, each.fallback, each.headers) for each in rules]
        found.append(Split(self.weights, self.fallback))
        last = next(place for place, each in enumerate(found) if not each.headers)
        return found[: last + 1]


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the calls with these headers."""

    weights: Mapping[str, int]
    fallback: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=_none)


def parse(text: str) -> dict[str, Route]:
    """The routes of a JSON document, by target. Raises RouteError."""
    if len(text) > MAX_DOCUMENT:
        raise RouteError(f"is longer than {MAX_DOCUMENT} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RouteError(f"does not parse: {str(error)[:200]}") from None
    for name in _typed("", found, dict):
        check_name(name)
    return {name: _at(name, Route, value) for name, value in found.items()}


def check_name(target: str) -> None:
    """Raise RouteError for what cannot be the name of a target."""
    if not _NAME.fullmatch(target):
        raise RouteError(f"{target!r} is no name of a target; letters, digits, '.', '_' and '-'")


_KINDS: Final = {
    "versions": dict, "weights": dict, "rules": list, "fallback": list, "draining": list,
    "ejection": dict, "identities": list, "headers": dict, "percent": int, "calls": int,
    "interval": (int, float), "server": str, "health": (str, type(None)),
}  # fmt: skip


_CALLED: Final = {dict: "object", list: "list", str: "string"}


def _typed(at: str, value: Any, kind: Any) -> Any:  # of JSON
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RouteError(f"{at or 'routes'}: is no {_CALLED.get(kind, 'number')}")
    return value


def _at(at: str, kind: Any, value: Any) -> Any:
    """One of the classes above of its JSON object. Raises RouteError, which names the place."""
    _typed(at, value, dict)
    known = {each.name for each in fields(kind)}
    made: dict[str, Any] = {}
    for name, each in value.items():
        here = f"{at}.{name}"
        if name not in known:
            raise RouteError(f"{here}: is no field{meant(name, known)}")
        _typed(here, each, _KINDS[name])
        if name == "rules":
            made[name] = tuple(_at(f"{here}[{n}]", Rule, rule) for n, rule in enumerate(each))
        elif name == "ejection":
            made[name] = _at(here, Ejection, each)
        elif isinstance(each, list):
            texts = [_typed(here, text, str) for text in each]
            made[name] = tuple(texts) if name == "fallback" else frozenset(texts)
        elif name in ("versions", "headers"):
            made[name] = {key: _typed(f"{here}.{key}", text, str) for key, text in each.items()}
        else:
            made[name] = each
    try:
        return kind(**made)
    except (RouteError, TypeError) as error:
        raise RouteError(f"{at}: {error}") from None
