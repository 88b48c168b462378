"""What an operator sees of one process: its state, and each of its methods."""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from google.protobuf import duration_pb2

from accord.client.method_state import ClientSnapshot, RouteSnapshot, TargetSnapshot
from accord.contract.merging import merge_options
from accord.contract.names import GRPC, described
from accord.contract.options_reader import read_method
from accord.contract.registry import check_service
from accord.ops.v1 import mesh_pb2 as pb
from accord.policies.breaker import State
from accord.policies.fault_injection import FaultPolicy
from accord.server.state import ServerState
from accord.v1 import policy_pb2

if TYPE_CHECKING:
    from accord.xds.plane import TargetState

POSITIONS: Final = {
    State.CLOSED: pb.BREAKER_POSITION_CLOSED,
    State.OPEN: pb.BREAKER_POSITION_OPEN,
    State.HALF_OPEN: pb.BREAKER_POSITION_HALF_OPEN,
}


class Operated(Protocol):
    """What is operated: an `accord.Mesh`."""

    name: str
    control: ServerState

    def snapshot(self) -> ClientSnapshot:
        """Breakers, budgets, hedge delays and caches of its clients."""

    def routed(self) -> "list[TargetState]":
        """The targets of its control plane, if it has one."""

    def route_problems(self) -> list[str]:
        """What is wrong with its routes."""


def state(mesh: Operated, prefix: str = "") -> pb.GetStateResponse:
    """All but its edges; of methods, those whose full name begins so."""
    control, clients = mesh.control, mesh.snapshot()
    load, streams = control.limiter.snapshot(), control.streams
    routes = [route for route in clients.routes if route.method[1:].startswith(prefix)]
    methods = (
        control.overrides.methods() | control.faults.injected.keys() | control.counts.methods()
    )
    return pb.GetStateResponse(
        service=mesh.name,
        breakers=_breakers(routes),
        budgets=_budgets(clients.targets),
        limit=pb.Limit(
            in_flight=load.in_flight - streams.in_flight,
            queued=load.queued,
            stream_limit=control.max_streams,
            streams=streams.in_flight,
            overloaded=load.overloaded,
            delay=duration(load.delay),
            methods=[
                pb.MethodLimit(
                    method=method[1:],
                    limit=int(line.limit),
                    in_flight=line.in_flight,
                    queued=line.queued,
                )
                for method, line in sorted(control.lines.items())
                if line.limit < math.inf and method[1:].startswith(prefix)
            ],
        ),
        methods=[
            method_of(control, name) for name in sorted(methods) if name[1:].startswith(prefix)
        ],
        refused=[
            pb.Refused(
                method=item.method, source=pb.Source.ValueType(item.layer), problem=item.problem
            )
            for item in control.overrides.refused()
            if item.method.startswith(prefix)
        ]
        + [
            pb.Refused(source=pb.SOURCE_FILE, problem=f"routes: {problem}")
            for problem in mesh.route_problems()
        ],
        hedges=_hedges(routes),
        routes=[route for state in mesh.routed() for route in _routes(state)],
    )


def method_of(control: ServerState, name: str) -> pb.Method:
    """A method as it is now; `name` as it travels."""
    policy = control.overrides.policy(name)
    found = pb.Method(
        method=name[1:],
        max_attempts=1 if policy.retry is None else policy.retry.max_attempts,
        counts=control.counts.of(name),
    )
    if policy.timeout is not None:
        found.timeout.CopyFrom(duration(policy.timeout))
    in_force = control.overrides.in_force(name)
    if in_force is not None:
        found.override.CopyFrom(in_force.override)
        found.source = pb.Source.ValueType(in_force.layer)
    injected = control.faults.of(name)
    if injected is not None:
        found.fault.CopyFrom(_fault(injected.policy))
        found.fault_ends_in.CopyFrom(duration(control.faults.ends_in(injected)))
        found.fault_principal = injected.principal
        found.fault_reason = injected.reason
    return found


def methods(mesh: Operated, prefix: str, last: str) -> Iterator[pb.Method]:
    """The methods of the process's contracts that come after `last`, by name, in full.

    Raises ContractError: a contract is invalid.
    """
    control, called = mesh.control, dict[str, list[RouteSnapshot]]()
    for route in mesh.snapshot().routes:
        called.setdefault(route.method, []).append(route)
    served = {*control.snapshot(), *_of_services(control.serves)}
    names = {*served, *called, *control.overrides.methods(), *_of_services(control.calls)}
    for name in sorted(names):
        if name[1:].startswith(prefix) and name[1:] > last and not name.startswith(GRPC):
            found = method_of(control, name)
            found.served = name in served
            descriptor = described(name)
            if descriptor is not None:
                found.contract.CopyFrom(read_method(descriptor).written)
                found.policy.CopyFrom(found.contract)
                merge_options(found.override.policy, found.policy)
            for route in called.get(name, ()):
                found.called.add(
                    target=route.target,
                    calls=route.calls,
                    retries=route.retries,
                    fallbacks=route.fallbacks,
                    cache_hits=route.cache_hits,
                    cache_misses=route.cache_misses,
                )
            yield found


def duration_of(found: duration_pb2.Duration) -> float:
    """A duration in seconds."""
    return found.seconds + found.nanos / 1e9


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a duration."""
    found = duration_pb2.Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _of_services(names: Iterable[str]) -> Iterator[str]:
    for name in tuple(names):
        with suppress(KeyError):  # its code has not been imported: nothing is declared
            yield from (policy.method for policy in check_service(name))


def _fault(policy: FaultPolicy) -> pb.Fault:
    found = pb.Fault(
        delay_percent=int(policy.delay_percent),
        abort_percent=int(policy.abort_percent),
        guarded=policy.guarded,
        delay=duration(policy.delay),
    )
    if policy.abort_percent > 0:
        found.abort_code = policy_pb2.StatusCode.ValueType(policy.abort)
    return found


def _breakers(routes: Iterable[RouteSnapshot]) -> list[pb.Breaker]:
    return [
        pb.Breaker(
            target=route.target,
            method=route.method[1:],
            position=POSITIONS[route.breaker.state],
            open_for=duration(route.breaker.retry_after),
            calls=route.breaker.calls,
            failures=route.breaker.failures,
        )
        for route in routes
        if route.breaker is not None
    ]


def _hedges(routes: Iterable[RouteSnapshot]) -> list[pb.Hedge]:
    return [
        pb.Hedge(
            target=route.target,
            method=route.method[1:],
            delay=None if route.hedge.delay is None else duration(route.hedge.delay),
            samples=route.hedge.samples,
            sent=route.hedge.sent,
            refused=route.hedge.refused,
        )
        for route in routes
        if route.hedge is not None
    ]


def _routes(state: "TargetState") -> Iterator[pb.Route]:
    resting = state.resting()
    for version in sorted(state.route.versions):
        endpoints = state.addresses(version)
        yield pb.Route(
            target=state.target,
            version=version,
            weight=state.route.weights.get(version, 0),
            endpoints=endpoints,
            resting=[each for each in endpoints if each in resting],
            rules=[str(rule) for rule in state.route.rules if rule.weights.get(version)],
        )


def _budgets(targets: Iterable[TargetSnapshot]) -> list[pb.Budget]:
    return [
        pb.Budget(
            target=target.target,
            balance=target.budget.balance,
            calls=target.budget.calls,
            retries=target.budget.retries,
        )
        for target in targets
    ]
