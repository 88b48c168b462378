"""Reads the definition of a saga from its contract.

The `saga` option of the RPC that sets it off says which calls it makes, in which order, and at
which of them the way back ends; the policy of each says how it is undone and how long it may take.
In code is only how requests are filled and how answers are kept, and which steps lie between that
call nobody. A definition that contradicts its contract is refused before the service starts.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord import ContractError, failure_of, idempotency_key, method_policy
from accord.contract import SagaPolicy
from accord.contract.names import described, meant, method_name
from accord_runtime.database import Tx
from accord_runtime.saga import fill
from accord_runtime.saga.definition import Action, Kind, Step, step_key
from accord_runtime.saga.orchestrator import TIMEOUT
from accord_runtime.work.table import Effect

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, A]):
    """What is in code of a step that the contract has."""

    name: str
    rpc: str
    """The step in the contract: full name of its RPC."""
    request: Callable[[str], Awaitable[Q]]
    """What is asked, given the saga's id; the same each time, for it is asked under one key."""
    answered: Callable[[Tx, str, A], None] = lambda tx, saga_id, answer: None
    """Written when it has answered: transaction, saga id, answer."""
    skipped: Callable[[Tx, str], None] | None = None
    """See `Step.skipped`."""


@dataclass(frozen=True, slots=True)
class Local:
    """A step that calls nobody and is in no contract; its place is where it is listed."""

    name: str
    written: Callable[[Tx, str], None]
    """What it writes: transaction, saga id."""


class Contract:
    """The saga of one RPC, and where its calls are made.

    Args:
        rpc: full name of the RPC that sets the saga off.
        channels: full name of a gRPC service -> its channel; for steps and their compensations.
        as_it_was: for a version that is not the newest: the `saga` that the contract had then.
    """

    def __init__(
        self,
        rpc: str,
        channels: Mapping[str, grpc.aio.Channel],
        as_it_was: SagaPolicy | None = None,
    ) -> None:
        """Raises ContractError if the contract contradicts itself."""
        self._rpc = rpc
        self._channels = channels
        self._descriptor("saga", rpc)
        found = as_it_was or method_policy(rpc).saga
        if found is None:
            raise self._refuse("saga", "is missing")
        self._pivot = found.pivot[1:]
        self._wanted = [path[1:] for path in found.steps]
        for name in self._wanted:
            self._descriptor("saga.steps", name)
        if self._pivot and self._pivot not in self._wanted:
            hint = meant(self._pivot, self._wanted)
            raise self._refuse("saga.pivot", f"{self._pivot!r} is not one of the steps{hint}")

    def steps(self, *steps: Call[Any, Any] | Local) -> Sequence[Step]:
        """All steps, in order; the calls are those of the contract.

        Raises:
            ContractError: they are not, or one cannot be undone or may take too long. The error
                names file, RPC and field, and what was probably meant.
        """
        if problem := self._mismatch(steps):
            raise self._refuse("saga.steps", problem)
        found: list[Step] = []
        kind = Kind.COMPENSATABLE
        for step in steps:
            if kind is Kind.PIVOT:
                kind = Kind.RETRIABLE
            if isinstance(step, Call):
                if step.rpc == self._pivot and kind is Kind.COMPENSATABLE:
                    kind = Kind.PIVOT
                found.append(self._step(step, kind))
            else:
                found.append(Step(step.name, kind, _writing(step)))
        return found

    def _mismatch(self, steps: Sequence[Call[Any, Any] | Local]) -> str:
        """How steps differ from those of the contract; "" if they do not."""
        calls = [step for step in steps if isinstance(step, Call)]
        called = [call.rpc for call in calls]
        for call in calls:
            if call.rpc not in self._wanted:
                hint = meant(call.rpc, self._wanted)
                return f"step {call.name!r} calls {call.rpc!r}, which is none of them{hint}"
        for name in self._wanted:
            if name not in called:
                return f"no step calls {name!r}"
        for number, (is_, should) in enumerate(zip_longest(called, self._wanted), 1):
            if is_ != should:
                return f"call {number} is {is_ or 'none'!r} instead of {should or 'none'!r}"
        names = [step.name for step in steps]
        doubled = [name for name in names if names.count(name) > 1]
        return f"two steps are called {doubled[0]!r}" if doubled else ""

    def _step(self, step: Call[Any, Any], kind: Kind) -> Step:
        ask = self._asking(step)

        async def act(saga_id: str, key: str) -> Effect:
            answer = await ask(saga_id, key)
            return lambda tx: step.answered(tx, saga_id, answer)

        level = self._descriptor("saga.steps", step.rpc).GetOptions().idempotency_level
        undone = kind is Kind.COMPENSATABLE and level != MethodOptions.NO_SIDE_EFFECTS
        undo = self._undoing(step, ask) if undone else None
        return Step(step.name, kind, act, undo, step.skipped)

    def _asking(self, step: Call[Any, Any]) -> Callable[[str, str], Awaitable[Any]]:
        call = self._call(step.rpc)

        async def ask(saga_id: str, key: str) -> Any:
            return await call(await step.request(saga_id), metadata=idempotency_key(key))

        return ask

    def _undoing(self, step: Call[Any, Any], ask: Callable[[str, str], Awaitable[Any]]) -> Action:
        """What undoes a step.

        If its request needs the step's answer, that is asked for again under the step's key, which
        gives the first one: also when it was lost, as that of a step whose outcome is not known.
        """
        policy = method_policy(step.rpc).compensation
        if policy is None:
            problem = f"is missing: it is a step of {self._rpc}, and not behind the pivot"
            raise self._refuse("compensation", problem, step.rpc)
        name = policy.method[1:]
        did = self._descriptor("saga.steps", step.rpc)
        undo = self._descriptor("compensation.method", name, step.rpc)
        if problem := fill.wrong(policy, did, undo):
            raise self._refuse("compensation.fill", problem, step.rpc)
        call = self._call(name)
        of_answer = any(source.startswith("response.") for _, source in policy.fill)

        async def act(saga_id: str, key: str) -> None:
            given = {"request": await step.request(saga_id)}
            if of_answer:
                try:
                    given["response"] = await ask(saga_id, step_key(saga_id, step.name, "do"))
                except grpc.RpcError as error:
                    failure = failure_of(error)
                    if failure is None or not failure.refusal:
                        raise
                    return  # It was never done, and never will be.
            await call(fill.filled(policy, undo, given), metadata=idempotency_key(key))

        return act

    def _call(self, name: str) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        service = name.partition("/")[0]
        if service not in self._channels:
            hint = meant(service, self._channels)
            raise self._refuse("saga.steps", f"no channel is for {service!r}{hint}")
        timeout = method_policy(name).timeout or 0.0
        if timeout > TIMEOUT:
            problem = f"is {timeout:g} s, more than the {TIMEOUT:g} s that a step has at a time"
            raise self._refuse("timeout", problem, name)
        method = self._descriptor("saga.steps", name)
        return self._channels[service].unary_unary(
            f"/{name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    def _descriptor(self, field: str, name: str, where: str = "") -> MethodDescriptor:
        """The RPC that a field names, in the policy of the RPC `where`; by default the saga's."""
        problem = f"{name!r} is not in the generated code of this process"
        try:
            if (found := described(method_name(name))) is not None:
                return found
        except ValueError as error:
            problem = str(error)
        raise self._refuse(field, problem, where)

    def _refuse(self, field: str, problem: str, rpc: str = "") -> ContractError:
        """The error that says what is wrong in the policy of an RPC; by default the saga's."""
        found = described(f"/{rpc or self._rpc}")
        file = found.containing_service.file.name if found else "no contract"
        return ContractError(file, rpc or self._rpc, field, problem)


def _writing(step: Local) -> Action:
    async def act(saga_id: str, key: str) -> Effect:
        return lambda tx: step.written(tx, saga_id)

    return act
