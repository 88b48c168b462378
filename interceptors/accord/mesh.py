"""Mesh: what a process holds to take part - its interceptors, channels and server settings."""

import asyncio
import json
import random as randomness
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc
import grpc.aio
from google.protobuf.message import Message

from accord.admin.gauges import watch
from accord.aio import client_interceptors
from accord.aio.client_attempts import Attempts
from accord.aio.client_channel import Channel
from accord.aio.server import Server
from accord.aio.server_core import bare
from accord.aio.server_interceptors import ServerInterceptor, ServerPipelines
from accord.client import service_config as balancing
from accord.client.channels import Channels
from accord.client.handshakes import HandshakeLog
from accord.client.method_state import ClientSnapshot, Environment, MethodStates
from accord.client.request import ClientSettings, Fallback, OnResume
from accord.client.shadow import Shadows
from accord.client.types import Options
from accord.contract.names import meant, method_name, wrong_response
from accord.contract.registry import check_service
from accord.errors import Translate
from accord.interfaces import Repeats, Validator
from accord.policies.budget import BudgetPolicy
from accord.policies.resume import ResumeLimits
from accord.server.registration import LAME_DUCK
from accord.server.request import Settings
from accord.server.state import Limits, ServerState
from accord.server.types import GenericHandler

if TYPE_CHECKING:
    from accord.identity import Identity
    from accord.sync.mesh import SyncMesh
    from accord.xds.client import XdsClient
    from accord.xds.plane import TargetState

MAX_OPEN: Final = 4000
"""Calls of one connection. See docs/abuse.md for what fewer or more cost."""

Targets = Mapping[str, str] | Callable[[str], str]

_METADATA: Final = (
    # Between gRPC's own bounds (8 and 16 KiB) calls fail at random; what is read here is bounded.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
)

_CHANNEL_OPTIONS: Final = (
    *_METADATA,
    # Servers that leave gRPC's settings alone end a connection that is pinged more often than every
    # five minutes, with the quiet streams on it.
    ("grpc.keepalive_time_ms", 6 * 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found within two seconds; a silent address is left after five.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_SERVER_OPTIONS: Final = (
    # Channels that ping more often are told "too many pings".
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # New replicas get their share of long-lived channels. Calls end on the old connection, streams
    # too, which have a lifetime of their own.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    # Calls that are not yet accepted are lost at random beyond the one bound, and all beyond the
    # other: CANCELLED, which nobody retries. A connection may have as many open as the first bound;
    # a client that wants more waits, and one that opens and resets them by the thousand is refused.
    ("grpc.max_concurrent_streams", MAX_OPEN),
    ("grpc.server.max_pending_requests", MAX_OPEN),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_OPEN),
    *_METADATA,
)


@dataclass(frozen=True, slots=True)
class Snapshot(ClientSnapshot):
    """What a process has learned: breakers, budgets, hedge delays and caches of its clients."""

    served: Mapping[str, Mapping[str, int]]
    """By method what its servers were asked: "calls", and what policies have decided."""


class Mesh:
    """One per process and event loop.

    `name` is the service's name: the domain of its errors. `targets` says where a named service
    listens; what has no entry is an address, with a port or a scheme; several backends are
    "ipv4:10.0.0.7:50051,10.0.0.8:50051", or a name that has them, "dns:///x:50051". `validator`
    checks every request, `idempotency` finds stored answers, or is "handler" where handlers
    recognise repeats by themselves: without either, a server with a method that requires keys does
    not start. `translate` turns the process's own exceptions (a lost database, say) into errors a
    caller may see. `on_resume` is told before a broken stream is opened again, which goes on for
    `resume_patience` seconds without progress. `budget` bounds the retries and hedges to each
    target. `limits` bounds what its servers take on; `authorize` refuses callers without a verified
    identity, and all whom a contract does not list; "dark": it counts and logs them, and they pass.
    `channel_options` are those of all channels, as
    far as one's own do not win over them. `health_checks` are the targets whose channels watch
    `grpc.health.v1` and send nothing to a server that does not say SERVING; without metadata, so
    that a server which asks for some would never be called. A mapping names the service whose
    health is watched; else it is "", the whole server. `service_config` replaces the one that
    channels have by themselves (see `accord.client.service_config`). `message_sizes` has its
    servers record the sizes of messages beside durations (see `accord.telemetry.metrics`).
    `identity` is who this process is: its servers know callers of its trust domains only, and none
    that it has revoked (see docs/identity.md), and verify for whom they call (see
    `accord.identity.users`); its channels go by xDS, with mutual TLS, to servers that are who they
    should be. `routes`, a file, says which version of a target gets which calls, and
    `control_plane` is the address of one that knows it for a fleet (see docs/xds.md). `clock` is
    monotonic, `random` uniform over [0, 1).

    Raises:
        ServiceConfigError: `service_config` is one that gRPC would fail every call with.
        ValueError: `health_checks` name what is no target, map one to its address and not to a
            service, or stand beside a `service_config`; `authorize` is none of the three;
            `routes` or `control_plane` stand without an `identity`, or a `service_config` beside
            one.
    """

    def __init__(
        self,
        name: str,
        *,
        targets: Targets | None = None,
        validator: Validator | None = None,
        idempotency: Repeats | None = None,
        translate: Translate | None = None,
        on_resume: OnResume | None = None,
        resume_patience: float = 60.0,
        budget: BudgetPolicy | None = None,
        limits: Limits | None = None,
        authorize: bool | Literal["dark"] = False,
        channel_options: Options = (),
        health_checks: Iterable[str] | Mapping[str, str] = (),
        service_config: Mapping[str, Any] | None = None,  # as in JSON
        message_sizes: bool = False,
        identity: "Identity | None" = None,
        routes: Path | str | None = None,
        control_plane: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        if service_config is not None:
            balancing.check(service_config)
            if health_checks:
                raise ValueError("health_checks: say it in the service_config, which replaces them")
        if authorize not in (True, False, "dark"):
            raise ValueError(f"authorize={authorize!r}: expected True, False or 'dark'")
        if identity is None and (routes is not None or control_plane is not None):
            raise ValueError("routes and control_plane: without an identity nobody obeys them")
        if identity is not None and service_config is not None:
            raise ValueError("service_config: channels by xDS, which an identity has, obey none")
        self.name = name
        self.identity = identity
        self._routes = routes
        self._control_plane = control_plane
        self._service_config = service_config
        self._targets = targets if targets is not None else {}
        self.control = ServerState(limits, clock=clock, random=random)
        """What its servers share, for whoever operates them: counts, faults, live policy."""
        self._methods = MethodStates(
            self.control.overrides, clock=clock, random=random, budget=budget
        )
        env = Environment(
            clock,
            random,
            self._methods,
            self.control.counts.add,
            HandshakeLog(identity).failed,
            self.control.edges,
            ResumeLimits(patience=resume_patience),
        )
        self._watched = watch(self._methods, self.control, identity, sizes=message_sizes)
        self._client = ClientSettings(env, on_resume)
        self._shadows = Shadows(env, self._bare)
        self._client.shadow = self._shadows.send
        users = None
        if identity is not None:
            from accord.identity.users import UserTokens  # late: only the extra has what it needs

            users = UserTokens(identity).read
        self._settings = Settings(
            name, clock, self.control, validator, idempotency, translate, authorize, identity, users
        )
        self._channel_defaults = _merged(_CHANNEL_OPTIONS, channel_options)
        if not isinstance(health_checks, Mapping):
            health_checks = dict.fromkeys(health_checks, "")
        self._health_checks = dict(health_checks)
        for target, service in self._health_checks.items():
            self.address(target)
            if ":" in service:
                raise ValueError(f"health_checks: {service!r} is an address, and no service")
        self._channels: Channels[grpc.aio.Channel] = Channels()

    def address(self, target: str) -> str:
        """Where a named service listens.

        Raises ValueError for what is none of the `targets`, if there are any, and no address.
        """
        if callable(self._targets):
            return self._targets(target)
        if self._targets and target not in self._targets and ":" not in target:
            hint = meant(target, self._targets)
            raise ValueError(f"{target!r} is no target, nor has it the port of an address{hint}")
        return self._targets.get(target, target)

    def channel(
        self,
        target: str,
        *contracts: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Options = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> grpc.aio.Channel:
        """The channel to a named service: made once, then kept.

        It belongs to the event loop in which it is first used, and may be made before one runs.
        `contracts` are the services called over it, "pkg.Service", to be checked now. `credentials`
        are those of mutual TLS, by which servers know the caller; None: those of the mesh's
        identity, which renew themselves, and no TLS if it has none. `options` are
        added to the library's own and win over them. `interceptors` go before the library's: they
        see a call once, with what came of it after all its attempts. Others of the three get a
        channel of their own. That of credentials which are forgotten, since they were renewed, is
        closed with the last stub and call that use it.
        """
        if credentials is not None or self.identity is not None:
            self._methods.secure(target)
        return self._channels.find(
            credentials,
            (target, contracts, tuple(options), *map(id, interceptors)),
            lambda: Channel(
                *self._way(target, credentials),
                self._channel_options(target, contracts, options),
                Attempts(self._client, target),
                interceptors,
            ),
        )

    def _way(
        self, target: str, credentials: grpc.ChannelCredentials | None
    ) -> tuple[str, grpc.ChannelCredentials | None]:
        """What gRPC is to open a channel to, and with which credentials."""
        address = self.address(target)
        if credentials is not None or self.identity is None:
            return address, credentials
        xds = self._xds
        return xds.target(target, address, self._health_checks.get(target)), xds.credentials()

    @cached_property
    def _xds(self) -> "XdsClient":
        from accord.xds.client import XdsClient  # late: most processes have no identity

        assert self.identity is not None  # else nobody asks
        found = XdsClient(self.identity, routes=self._routes, control_plane=self._control_plane)
        self._watched.xds = found
        return found

    def _bare(self, target: str) -> grpc.Channel:
        """A channel that enforces no contract."""
        address, credentials = self._way(target, None)
        options = self._channel_options(target, (), ())
        if credentials is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, credentials, options)

    def routed(self) -> "list[TargetState]":
        """The targets of the control plane in this process; empty if it has none."""
        return self._xds.state() if "_xds" in self.__dict__ else []

    def route_problems(self) -> list[str]:
        """Why routes are not obeyed: a wrong file, a refusal by gRPC, no control plane."""
        return self._xds.problems() if "_xds" in self.__dict__ else []

    def _channel_options(self, target: str, contracts: Sequence[str], options: Options) -> Options:
        for name in contracts:
            check_service(name)
            self.control.calls.add(name)
        config = self._service_config
        if config is None:
            config = balancing.default(health=self._health_checks.get(target))
        derived = (("grpc.service_config", json.dumps(config)),)
        return _merged((*derived, *self._channel_defaults), options)

    def client_interceptors(
        self, target: str = ""
    ) -> list[Any]:  # gRPC's stubs have no type for an interceptor of aio that nobody must cast
        """Interceptors for a channel of your own. `target` names what it leads to."""
        return client_interceptors.interceptors(Attempts(self._client, target))

    def fallback(self, method: str, fn: Fallback) -> None:
        """Answer calls of "pkg.Service/Method" by `fn(request, error)` when they cannot be made.

        It is asked when a call of one request and one response has ended UNAVAILABLE (an open
        breaker included) or DEADLINE_EXCEEDED, after all attempts. `fn` may be a coroutine
        function; None, or an exception, lets the caller have the error. What is not a response of
        the method counts as an exception.

        Raises ValueError for what is not a method, and TypeError for what cannot be called or says
        that it returns something else.
        """
        name = method_name(method)
        if not callable(fn):
            raise TypeError(f"the fallback of {method} cannot be called: {fn!r}")
        made = get_annotations(fn).get("return")
        if isinstance(made, type) and issubclass(made, Message) and wrong_response(name, made):
            raise TypeError(wrong_response(name, made))
        self._client.fallbacks[name] = fn

    def snapshot(self) -> Snapshot:
        """What this process's clients and servers have learned."""
        found = self._methods.snapshot()
        return Snapshot(found.routes, found.targets, self.control.snapshot())

    def server_interceptors(self) -> list[ServerInterceptor]:
        """Interceptors for a server of your own; they go before any others."""
        return [ServerInterceptor(ServerPipelines(self._settings))]

    def server(
        self,
        *,
        interceptors: Sequence["grpc.aio.ServerInterceptor[Message, Message]"] = (),
        options: Options = (),
        handlers: Sequence[GenericHandler] | None = None,
        lame_duck: float = LAME_DUCK,
        migration_thread_pool: Executor | None = None,
        maximum_concurrent_rpcs: int | None = None,
        compression: grpc.Compression | None = None,
    ) -> Server:
        """A server that enforces the contracts of what it serves, with health and drain.

        `options` are added to the library's own and win over them; `handlers` are as if they were
        added to the server; `lame_duck` as in `accord.aio.server.Server.stop`; the rest as in
        `grpc.aio.server`.
        """
        pipelines = ServerPipelines(self._settings, migration_thread_pool)
        options = _merged(_SERVER_OPTIONS, options)
        pipelines.peers.callers.bound(options)
        server = bare(
            interceptors=[ServerInterceptor(pipelines), *interceptors] if interceptors else [],
            options=options,
            migration_thread_pool=migration_thread_pool,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
            compression=compression,
        )
        found = Server(
            server, pipelines=pipelines, intercepted=bool(interceptors), lame_duck=lame_duck
        )
        found.add_generic_rpc_handlers(handlers or ())
        return found

    @cached_property
    def sync(self) -> "SyncMesh":
        """The same for gRPC with threads: `mesh.sync.channel(...)`, `mesh.sync.server()`."""
        from accord.sync.mesh import SyncMesh  # late: most processes use one kind of gRPC

        return SyncMesh(
            self._client,
            self._settings,
            way=self._way,
            channel_options=self._channel_options,
            server_options=partial(_merged, _SERVER_OPTIONS),
        )

    async def close(self, grace: float | None = None) -> None:
        """Close all channels; calls in flight get `grace` seconds, those of `sync` none."""
        await asyncio.gather(*(channel.close(grace) for channel in self._channels.clear()))
        if "sync" in self.__dict__:
            self.sync.close()
        self._shadows.close()
        if "_xds" in self.__dict__:
            self._watched.xds = None
            self.__dict__.pop("_xds").close()


def _merged(ours: Options, options: Options) -> Options:
    """The library's, and those that win over them."""
    return tuple({**dict(ours), **dict(options)}.items())
