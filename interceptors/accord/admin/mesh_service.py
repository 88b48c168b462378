"""What the operator of a process sees and changes over gRPC: `accord.ops.v1.MeshService`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from accord import errors
from accord.admin.process_state import Operated, duration_of, method_of, methods, state
from accord.admin.watch import INTERVAL, LONGEST, SHORTEST, Changes, Events
from accord.context import current
from accord.contract.live_overrides import InForce, OverrideRefused, PolicyStore, document
from accord.contract.names import METHOD, OPERATED, described
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1 import mesh_pb2_grpc
from accord.policies.fault_injection import FaultPolicy
from accord.policies.types import Code

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

PAGE: Final = 50
"""Methods of a page when the caller does not say."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """What an operator has done: to which method, why, and how it stood before and after."""

    target: str
    reason: str
    before: str
    after: str


Audit = Callable[[Intervention], Awaitable[None]]
"""Writes an intervention down, while it is the call being handled (`accord.current`)."""


def serve(
    mesh: Operated,
    server: grpc.aio.Server,
    *,
    store: PolicyStore | None = None,
    audit: Audit | None = None,
    events: Events = tuple,
) -> str:
    """Add the operator's service to a server of the mesh; returns its name.

    With a `store`, overrides are written to it, so that every replica that follows it has them;
    without, they are this process's own and end with it. `events` says what the process consumes
    and publishes.
    """
    servicer = MeshServicer(mesh, store, audit, events)
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(servicer, server)
    return CONTRACT


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    """The RPCs of `accord.ops.v1.MeshService`."""

    def __init__(
        self,
        mesh: Operated,
        store: PolicyStore | None,
        audit: Audit | None,
        events: Events = tuple,
    ) -> None:
        self._mesh = mesh
        self._events = events
        self._set: dict[str, tuple[InForce | None, str, str]] = {}
        """By method the live policy that was set here, by whom and why."""
        self._control = mesh.control
        self._store = store
        self._audit = audit

    async def GetState(self, request: pb.GetStateRequest, context: Context) -> pb.GetStateResponse:
        """Returns breakers, budgets, hedges, limits, overrides and counts."""
        return state(self._mesh, request.method_prefix)

    async def WatchState(
        self, request: pb.WatchStateRequest, context: Context
    ) -> AsyncIterator[pb.WatchStateResponse]:
        """Streams the state and the edges: all at first, then what has changed."""
        interval = duration_of(request.interval) if request.HasField("interval") else INTERVAL
        if not SHORTEST <= interval <= LONGEST:
            raise errors.InvalidArgument(("interval", "must lie between 0.5 and 60 s"))
        changes = Changes(self._mesh, self._events)
        with self._control.edges.watching():
            while True:
                if (found := changes.next()) is not None:
                    yield found
                await asyncio.sleep(interval)

    async def ListMethods(
        self, request: pb.ListMethodsRequest, context: Context
    ) -> pb.ListMethodsResponse:
        """Lists the methods of the process's contracts, by name."""
        # A token is the last name of its page, so that nothing that goes or comes moves the next.
        last, most = request.page_token, request.page_size or PAGE
        after = methods(self._mesh, request.method_prefix, last)
        page = [self._signed(found) for found in islice(after, most + 1)]
        token = page[most - 1].method if len(page) > most else ""
        return pb.ListMethodsResponse(methods=page[:most], next_page_token=token)

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
        self._set[method] = (control.overrides.in_force(method), _actor(), request.reason)
        await self._record(method, request.reason, before)
        return pb.SetOverrideResponse(method=method_of(self._control, method))

    async def ClearOverride(
        self, request: pb.ClearOverrideRequest, context: Context
    ) -> pb.ClearOverrideResponse:
        """Removes the live policy of a method."""
        method = f"/{request.method}"
        before = self._describe(method)
        if self._store is not None and not method.startswith(OPERATED):  # there can be none
            await _kept(self._store.delete(request.method))
        self._control.overrides.clear(method)
        self._set.pop(method, None)
        await self._record(method, request.reason, before)
        return pb.ClearOverrideResponse(method=method_of(self._control, method))

    async def InjectFault(
        self, request: pb.InjectFaultRequest, context: Context
    ) -> pb.InjectFaultResponse:
        """Makes a method of this process slow or failing for a while."""
        method, before = _known(request.method), self._describe(f"/{request.method}")
        if method.startswith(OPERATED):
            raise errors.InvalidArgument(("method", "is what the process is operated by"))
        policy, lasting = _fault_policy(request.fault), duration_of(request.lasting)
        if not 0 < lasting <= MAX_LASTING:
            raise errors.InvalidArgument(("lasting", "must lie between 1 ms and 1 h"))
        if policy.delay_percent > 0 or policy.abort_percent > 0:
            self._control.faults.inject(method, policy, lasting, _actor(), request.reason)
        else:
            self._control.faults.clear(method)
        await self._record(method, request.reason, before)
        return pb.InjectFaultResponse(method=method_of(self._control, method))

    async def ClearFault(
        self, request: pb.ClearFaultRequest, context: Context
    ) -> pb.ClearFaultResponse:
        """Ends the injected fault of a method."""
        method = f"/{request.method}"
        before = self._describe(method)
        self._control.faults.clear(method)
        await self._record(method, request.reason, before)
        return pb.ClearFaultResponse(method=method_of(self._control, method))

    def _signed(self, found: pb.Method) -> pb.Method:
        """A method with who has set its live policy, if it is the one that was set here."""
        override, who, why = self._set.get(f"/{found.method}", (None, "", ""))
        if override is not None and override is self._control.overrides.in_force(
            f"/{found.method}"
        ):
            found.override_principal, found.override_reason = who, why
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


def _actor() -> str:
    call = current()
    return "" if call is None else call.actor


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
    delay = duration_of(fault.delay)
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
