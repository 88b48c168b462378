"""A control plane: targets and their routes, followed as they change, for whoever subscribes."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any

from accord._files import stamp
from accord._log import log
from accord.xds import resources
from accord.xds.addresses import is_ip, look_up, split
from accord.xds.health import HealthWatch
from accord.xds.resources import Endpoint, Target
from accord.xds.routes import Route, RouteError, parse
from accord.xds.server import Server

POLL: Final = 0.25
"""Seconds between two looks at the file of routes."""

LOOK_UP: Final = 5.0
"""Seconds between two look-ups of the names of endpoints."""

_AGAIN: Final = "~"
"""In the name of a target that two meshes of a process know by different routes."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target as it is routed now, for whoever operates the process."""

    target: str
    route: Route
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    """By version; one that is not in it has not been looked up."""
    unhealthy: frozenset[Endpoint]

    def addresses(self, version: str) -> list[str]:
        """The endpoints of a version, as people write them."""
        return [resources.address(each) for each in self.endpoints.get(version, ())]

    def resting(self) -> set[str]:
        """Endpoints that are sent no new calls: they do not serve, or they drain."""
        return {*self.route.draining, *map(resources.address, self.unhealthy)}


class ControlPlane:
    """Knows the targets, and serves them over xDS. Safe under threads.

    `domain` is the trust domain of servers whose route does not name their id. `routes` is a file,
    read again when it changes; what it says of a target wins over what `add` has. One that is
    refused leaves everything as it was, and is a `problem`.

    Raises RouteError: the file is wrong at the start.
    """

    def __init__(self, domain: str, *, routes: Path | None = None) -> None:
        self._domain = domain
        self._file = routes
        self._lock = RLock()
        self._added: dict[str, Route] = {}
        self._ever: dict[str, Route] = {}
        self._users: Counter[str] = Counter()
        self._filed: dict[str, Route] = {}
        self._looked_up: dict[str, tuple[Endpoint, ...]] = {}
        """By address."""
        self._targets: Mapping[str, Target] = {}
        self._health = HealthWatch(self._settle)
        self._server: Server | None = None
        self._stopped, self._unknown = Event(), Event()
        self._stamp: object = None
        self.problem = ""
        """Why the file of routes is not obeyed as it is now; "": it is."""
        if routes is not None:
            self._stamp = stamp(routes)
            self._read(routes)

    def serve(self, address: str, credentials: grpc.ServerCredentials | None, caller: str) -> int:
        """Begin to serve, and to follow what changes; the port. `caller`: see `_find`."""

        def find(kind: str, name: str, asking: str) -> Any | None:
            return resources.named(kind, name, self._targets, caller or asking)

        self._server = Server(address, find, credentials)
        for run in (self._follow_file, self._follow_names):
            Thread(target=run, name="accord-xds-follow", daemon=True).start()
        return self._server.port

    def knows(self, name: str) -> bool:
        """Whether the file of routes has a target."""
        return name in self._filed

    def add(self, name: str, route: Route) -> str:
        """Take on a target; the name that it got: another one, if this is taken by another route.

        Raises RouteError.
        """
        for address in route.versions.values():
            split(address)
        with self._lock:
            found, number = name, 1
            # Nor one that was given up: gRPC may still know it as it was.
            while self._ever.setdefault(found, route) != route:
                number += 1
                found = f"{name}{_AGAIN}{number}"
            self._added[found] = route
            self._users[found] += 1
            self._settle()
        return found

    def remove(self, names: Iterable[str]) -> None:
        """Give up targets; who else has added one keeps it."""
        with self._lock:
            for name in names:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name], self._added[name]
            self._settle()

    def state(self) -> list[TargetState]:
        """All targets, by name."""
        return [
            TargetState(name.partition(_AGAIN)[0], each.route, each.endpoints, each.unhealthy)
            for name, each in sorted(self._targets.items())
        ]

    def problems(self) -> list[str]:
        """Why the file of routes is not obeyed, and what clients have refused."""
        said = [self.problem] if self.problem else []
        return said if self._server is None else [*said, *self._server.refusals()]

    def unused(self, patience: float) -> bool:
        """Whether no client is left, after so many seconds at most."""
        return self._server is None or self._server.unused(patience)

    def stop(self) -> None:
        """End all streams; clients go on with what they have."""
        self._stopped.set()
        self._unknown.set()
        self._health.watch({})
        if self._server is not None:
            self._server.stop()

    def _settle(self) -> None:
        """Work out the targets, and push what has changed."""
        with self._lock:
            routes = {**self._filed, **self._added}
            for name, route in self._added.items():
                filed = self._filed.get(name.partition(_AGAIN)[0])
                if filed is not None:
                    kept = route.health if filed.health is None else filed.health
                    routes[name] = replace(filed, health=kept)
            unhealthy = self._health.unhealthy()
            self._targets = {
                name: Target(
                    route,
                    self._endpoints(route),
                    route.server or f"spiffe://{self._domain}/{name.partition(_AGAIN)[0]}",
                    unhealthy,
                )
                for name, route in routes.items()
            }
            self._health.watch(
                {
                    endpoint: target.route.health
                    for target in self._targets.values()
                    if target.route.health is not None
                    for endpoints in target.endpoints.values()
                    for endpoint in endpoints
                }
            )
        if self._server is not None:
            self._server.push()

    def _endpoints(self, route: Route) -> dict[str, tuple[Endpoint, ...]]:
        found: dict[str, tuple[Endpoint, ...]] = {}
        for version, address in route.versions.items():
            known = self._looked_up.get(address)
            if known is None:
                listed = split(address)
                if all(is_ip(host) for host, _ in listed):
                    known = self._looked_up[address] = look_up(listed)
                else:
                    self._unknown.set()
            if known is not None:
                found[version] = known
        return found

    def _follow_file(self) -> None:
        while self._file is not None and not self._stopped.wait(POLL):
            found = stamp(self._file)
            if found == self._stamp:
                continue
            self._stamp = found
            try:
                self._read(self._file)
            except RouteError as error:
                self.problem = str(error)
                log(logging.ERROR, "the file of routes is not obeyed", problem=error)

    def _read(self, file: Path) -> None:
        """Take over the file. Raises RouteError, and then nothing has changed."""
        try:
            found = parse(file.read_text())
            for route in found.values():
                for address in route.versions.values():
                    split(address)
        except FileNotFoundError:
            found = {}
        except (OSError, UnicodeDecodeError, RouteError) as error:
            raise RouteError(f"{file}: {error}") from None
        self.problem = ""
        with self._lock:
            changed, self._filed = found != self._filed, found
            if changed:
                self._settle()
                log(logging.INFO, "routes have changed", targets=", ".join(sorted(found)))

    def _follow_names(self) -> None:
        while not self._stopped.is_set():
            self._unknown.clear()
            if self._look_up(self._names()):
                self._settle()
            self._unknown.wait(LOOK_UP)

    def _names(self) -> set[str]:
        with self._lock:
            used = {
                each for target in self._targets.values() for each in target.route.versions.values()
            }
            for address in self._looked_up.keys() - used:
                del self._looked_up[address]
        return {each for each in used if not all(is_ip(host) for host, _ in split(each))}

    def _look_up(self, names: Iterable[str]) -> bool:
        """Look names up; whether anything has changed. What is not known now stays as it was."""
        changed = False
        for address in names:
            known = self._looked_up.get(address)
            try:
                found = look_up(split(address))
            except OSError as error:
                found = known or ()
                if known is None:
                    log(logging.WARNING, "a name is not known", address=address, problem=error)
            if found != known:
                changed = True
                self._looked_up[address] = found
        return changed
