"""What the operator of a process sees and changes over gRPC: `accord.ops.v1.MeshService`."""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio
from google.protobuf import duration_pb2

from accord import errors
from accord.client.method_state import ClientSnapshot, RouteSnapshot, TargetSnapshot
from accord.context import current
from accord.contract.live_overrides import OverrideRefused, PolicyStore, document
from accord.contract.names import METHOD, OPERATED, described
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1 import mesh_pb2_grpc
from accord.policies.breaker import State
from accord.policies.fault_injection import FaultPolicy
from accord.policies.types import Code
from accord.server.state import ServerState
from accord.v1 import policy_pb2

if TYPE_CHECKING:
    from accord.xds.plane import TargetState

# It is not used, and the generated base has another one for each RPC.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

CONTRACT: Final = "accord.ops.v1.MeshService"
"""The operator's service."""

OVERRIDE_REFUSED: Final = "OVERRIDE_REFUSED"
"""ErrorInfo reason: the override cannot be in force; the violation says why."""

STORE_UNAVAILABLE: Final = "POLICY_STORE_UNAVAILABLE"
"""ErrorInfo reason: live policy cannot be kept at the moment, so it was not changed either."""

MAX_LASTING: Final = 3600.0
"""Seconds of the longest fault."""

_MAX_DELAY: Final = 600.0
_POSITIONS: Final = {
    State.CLOSED: pb.BREAKER_POSITION_CLOSED,
    State.OPEN: pb.BREAKER_POSITION_OPEN,
    State.HALF_OPEN: pb.BREAKER_POSITION_HALF_OPEN,
}


@dataclass(frozen=True, slots=True)
class Intervention:
    """What an operator has done: to which method, why, and how it stood before and after."""

    target: str
    reason: str
    before: str
    after: str


Audit = Callable[[Intervention], Awaitable[None]]
"""Writes an intervention down, while it is the call being handled (`accord.current`)."""


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


def serve(
    mesh: Operated,
    server: grpc.aio.Server,
    *,
    store: PolicyStore | None = None,
    audit: Audit | None = None,
) -> str:
    """Add the operator's service to a server of the mesh; returns its name.

    With a `store`, overrides are written to it, so that every replica that follows it has them;
    without, they are this process's own and end with it.
    """
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(MeshServicer(mesh, store, audit), server)
    return CONTRACT


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    """The RPCs of `accord.ops.v1.MeshService`."""

    def __init__(self, mesh: Operated, store: PolicyStore | None, audit: Audit | None) -> None:
        self._mesh = mesh
        self._control = mesh.control
        self._store = store
        self._audit = audit

    async def GetState(self, request: pb.GetStateRequest, context: Context) -> pb.GetStateResponse:
        """Returns breakers, budgets, hedges, limits, overrides and counts."""
        control, clients = self._control, self._mesh.snapshot()
        load, streams = control.limiter.snapshot(), control.streams
        prefix = request.method_prefix
        routes = [route for route in clients.routes if route.method[1:].startswith(prefix)]
        methods = (
            control.overrides.methods() | control.faults.injected.keys() | control.counts.methods()
        )
        return pb.GetStateResponse(
            service=self._mesh.name,
            breakers=_breakers(routes),
            budgets=_budgets(clients.targets),
            limit=pb.Limit(
                in_flight=load.in_flight - streams.in_flight,
                queued=load.queued,
                stream_limit=control.max_streams,
                streams=streams.in_flight,
                overloaded=load.overloaded,
                delay=_duration(load.delay),
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
                self._method(method) for method in sorted(methods) if method[1:].startswith(prefix)
            ],
            refused=[
                pb.Refused(
                    method=item.method,
                    source=pb.Source.ValueType(item.layer),
                    problem=item.problem,
                )
                for item in control.overrides.refused()
                if item.method.startswith(prefix)
            ]
            + [
                pb.Refused(source=pb.SOURCE_FILE, problem=f"routes: {problem}")
                for problem in self._mesh.route_problems()
            ],
            hedges=_hedges(routes),
            routes=[route for state in self._mesh.routed() for route in _routes(state)],
        )

    async def SetOverride(
        self, request: pb.SetOverrideRequest, context: Context
    ) -> pb.SetOverrideResponse:
        """Replaces the live policy of a method."""
        method = _known(request.method)
        control, before = self._control, self._describe(method)
        try:
            control.overrides.check(method, request.override)
        except OverrideRefused as refusal:
            violation = ("override", refusal.problem)
            raise errors.InvalidArgument(OVERRIDE_REFUSED, violation) from None
        if self._store is not None:
            await _kept(self._store.put(request.method, document(request.override)))
        control.overrides.set(method, request.override)
        await self._record(method, request.reason, before)
        return pb.SetOverrideResponse(method=self._method(method))

    async def ClearOverride(
        self, request: pb.ClearOverrideRequest, context: Context
    ) -> pb.ClearOverrideResponse:
        """Removes the live policy of a method."""
        method = f"/{request.method}"
        before = self._describe(method)
        if self._store is not None:
            await _kept(self._store.delete(request.method))
        self._control.overrides.clear(method)
        await self._record(method, request.reason, before)
        return pb.ClearOverrideResponse(method=self._method(method))

    async def InjectFault(
        self, request: pb.InjectFaultRequest, context: Context
    ) -> pb.InjectFaultResponse:
        """Makes a method of this process slow or failing for a while."""
        method, before = _known(request.method), self._describe(f"/{request.method}")
        if method.startswith(OPERATED):
            raise errors.InvalidArgument(("method", "is what the process is operated by"))
        policy, lasting = _fault_policy(request.fault), _seconds(request.lasting)
        if not 0 < lasting <= MAX_LASTING:
            raise errors.InvalidArgument(("lasting", "must lie between 1 ms and 1 h"))
        if policy.delay_percent > 0 or policy.abort_percent > 0:
            call = current()
            principal = "" if call is None else call.actor
            self._control.faults.inject(method, policy, lasting, principal, request.reason)
        else:
            self._control.faults.clear(method)
        await self._record(method, request.reason, before)
        return pb.InjectFaultResponse(method=self._method(method))

    async def ClearFault(
        self, request: pb.ClearFaultRequest, context: Context
    ) -> pb.ClearFaultResponse:
        """Ends the injected fault of a method."""
        method = f"/{request.method}"
        before = self._describe(method)
        self._control.faults.clear(method)
        await self._record(method, request.reason, before)
        return pb.ClearFaultResponse(method=self._method(method))

    def _method(self, method: str) -> pb.Method:
        control = self._control
        policy = control.overrides.policy(method)
        found = pb.Method(
            method=method[1:],
            max_attempts=1 if policy.retry is None else policy.retry.max_attempts,
            counts=control.counts.of(method),
        )
        if policy.timeout is not None:
            found.timeout.CopyFrom(_duration(policy.timeout))
        in_force = control.overrides.in_force(method)
        if in_force is not None:
            found.override.CopyFrom(in_force.override)
            found.source = pb.Source.ValueType(in_force.layer)
        injected = control.faults.of(method)
        if injected is not None:
            found.fault.CopyFrom(_fault(injected.policy))
            found.fault_ends_in.CopyFrom(_duration(control.faults.ends_in(injected)))
            found.fault_principal = injected.principal
            found.fault_reason = injected.reason
        return found

    def _describe(self, method: str) -> str:
        """The override and the fault of a method, for people."""
        said = []
        in_force = self._control.overrides.in_force(method)
        if in_force is not None:
            said.append(document(in_force.override))
        injected = self._control.faults.of(method)
        if injected is not None:
            fault, left = injected.policy, self._control.faults.ends_in(injected)
            said.append(
                f"fault: {fault.delay_percent:g} % delayed by {fault.delay:g} s,"
                f" {fault.abort_percent:g} % {fault.abort.name}, {left:g} s left"
            )
        return "; ".join(said) or "as its contract says"

    async def _record(self, method: str, reason: str, before: str) -> None:
        if self._audit is not None:
            await self._audit(Intervention(method[1:], reason, before, self._describe(method)))


def _known(method: str) -> str:
    """A method as it travels. Raises NotFound."""
    if not METHOD.fullmatch(method):
        raise errors.InvalidArgument(("method", "is not a method such as 'pkg.Service/Method'"))
    if described(f"/{method}") is None:
        raise errors.NotFound(resource=errors.Resource("method", method))
    return f"/{method}"


async def _kept(written: Awaitable[None]) -> None:
    try:
        await written
    except errors.ServiceError:
        raise
    except Exception as error:  # whatever a store raises when it is away
        raise errors.Unavailable(
            STORE_UNAVAILABLE, 1.0, "live policy cannot be kept at the moment"
        ) from error


def _fault_policy(fault: pb.Fault) -> FaultPolicy:
    delay = _seconds(fault.delay)
    if not 0 <= delay <= _MAX_DELAY:
        raise errors.InvalidArgument(("fault.delay", "must lie between 0 and 10 minutes"))
    for name in ("delay_percent", "abort_percent"):
        if not 0 <= getattr(fault, name) <= 100:
            raise errors.InvalidArgument((f"fault.{name}", "must lie between 0 and 100"))
    if fault.delay_percent > 0 and delay == 0:
        raise errors.InvalidArgument(("fault.delay", "is missing"))
    try:
        code = Code(fault.abort_code)
    except ValueError:
        raise errors.InvalidArgument(("fault.abort_code", "is not a status code")) from None
    if fault.abort_percent > 0 and code is Code.OK:
        raise errors.InvalidArgument(("fault.abort_code", "is not the code of a failure"))
    return FaultPolicy(delay, fault.delay_percent, code, fault.abort_percent, guarded=fault.guarded)


def _fault(policy: FaultPolicy) -> pb.Fault:
    found = pb.Fault(
        delay_percent=int(policy.delay_percent),
        abort_percent=int(policy.abort_percent),
        guarded=policy.guarded,
        delay=_duration(policy.delay),
    )
    if policy.abort_percent > 0:
        found.abort_code = policy_pb2.StatusCode.ValueType(policy.abort)
    return found


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _duration(seconds: float) -> duration_pb2.Duration:
    found = duration_pb2.Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _breakers(routes: Iterable[RouteSnapshot]) -> list[pb.Breaker]:
    return [
        pb.Breaker(
            target=route.target,
            method=route.method[1:],
            position=_POSITIONS[route.breaker.state],
            open_for=_duration(route.breaker.retry_after),
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
            delay=None if route.hedge.delay is None else _duration(route.hedge.delay),
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
