"""The steps that an RPC sets off."""

from collections.abc import Iterator

from accord_checks.contracts import Contracts
from accord_checks.formatting import duration_seconds, seconds
from accord_checks.lint_rules.examples import (
    ANYBODY,
    IDEMPOTENT,
    KEYED,
    NATURAL,
    RETRY,
    TIMEOUT,
    block,
    compensation_example,
    rpc_example,
)
from accord_checks.lint_rules.rule import Finding, rule


def _example(limit: int = 15, step: str = "BuildThing") -> str:
    steps = f'steps: [\n  "example.v1.ThingService/{step}"\n]'
    saga = block("saga", f"timeout: {{seconds: {limit}}}", steps)
    undo = compensation_example("request.thing_id")
    rpcs = (
        rpc_example("AddThing", TIMEOUT, KEYED, ANYBODY, saga),
        rpc_example("BuildThing", "timeout: {seconds: 10}", RETRY, KEYED, ANYBODY, undo),
        rpc_example("DropThing", TIMEOUT, RETRY, NATURAL, ANYBODY, level=IDEMPOTENT),
    )
    return "".join(rpcs)


@rule(
    "ACCORD_SAGA_STEPS",
    purpose="Each step of a saga may be repeated and, before the pivot, undone.",
    why="the saga can neither go on nor turn back after a failure",
    bad=_example(step="MakeThing"),
    good=_example(),
)
def steps(contracts: Contracts) -> Iterator[Finding]:
    """Steps that are unknown, not idempotent, or cannot be undone while there is a way back."""
    for rpc in contracts.own_rpcs:
        saga = rpc.written.saga
        if rpc.written.HasField("saga") and not saga.steps:
            yield Finding(
                rpc.at("saga"),
                f"the saga of {rpc.short} has no steps",
                "write `steps: [...]`, full names of RPCs in order",
            )
        back = True
        for index, name in enumerate(saga.steps):
            step = contracts.rpcs.get(name)
            back = back and name != saga.pivot
            wrong = None
            if step is None:
                wrong, instead = "is no RPC of these contracts", "write the full name of one"
            elif not step.policy.idempotent:
                wrong = "is not idempotent"
                instead = "write `idempotency: {key: KEY_REQUIRED}` there"
            elif back and not step.reads and not step.written.HasField("compensation"):
                wrong = "comes before the pivot and has no compensation"
                instead = "write `compensation` there, or name the `pivot` of the saga"
            if wrong:
                yield Finding(
                    rpc.at("saga", "steps", index),
                    f"{name!r}, a step of {rpc.short}'s saga, {wrong}",
                    instead,
                )


@rule(
    "ACCORD_SAGA_FITS",
    purpose="The timeouts of a saga's steps, one after the other, fit into the saga's.",
    why="the saga is late although every step was in time",
    bad=_example(limit=5),
    good=_example(),
)
def fits(contracts: Contracts) -> Iterator[Finding]:
    """Steps that add up to more than the saga has."""
    for rpc in contracts.own_rpcs:
        limit = duration_seconds(rpc.written.saga.timeout)
        found = (contracts.rpcs.get(step) for step in rpc.written.saga.steps)
        needed = sum(step.policy.timeout or 0.0 for step in found if step is not None)
        if 0 < limit < needed:
            yield Finding(
                rpc.at("saga", "timeout"),
                f"the steps of {rpc.short}'s saga may take {seconds(needed)}, the saga "
                f"{seconds(limit)}",
                f"write at least {seconds(needed)}, or shorten the timeouts of the steps",
            )
