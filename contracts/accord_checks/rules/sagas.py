"""The steps that an RPC sets off."""

from collections.abc import Iterator
from typing import Final

from accord_checks.model import Contracts
from accord_checks.rule import Finding, rule
from accord_checks.text import seconds, span

_EXAMPLE: Final = """
rpc AddThing(AddThingRequest) returns (AddThingResponse) {{
  option (accord.v1.policy) = {{
    timeout: {{seconds: 2}}
    idempotency: {{key: KEY_REQUIRED}}
    allow: ["*"]
    saga: {{
      timeout: {{seconds: {limit}}}
      steps: [
        "example.v1.ThingService/{step}"
      ]
    }}
  }};
}}
rpc BuildThing(BuildThingRequest) returns (BuildThingResponse) {{
  option (accord.v1.policy) = {{
    timeout: {{seconds: 10}}
    retry: {{max_attempts: 3}}
    idempotency: {{key: KEY_REQUIRED}}
    allow: ["*"]
    compensation: {{
      method: "example.v1.ThingService/DropThing"
      fill: {{
        field: "thing_id"
        from: "request.thing_id"
      }}
    }}
  }};
}}
rpc DropThing(DropThingRequest) returns (DropThingResponse) {{
  option idempotency_level = IDEMPOTENT;
  option (accord.v1.policy) = {{
    timeout: {{seconds: 2}}
    retry: {{max_attempts: 3}}
    idempotency: {{key: KEY_NATURAL}}
    allow: ["*"]
  }};
}}
"""
_GOOD: Final = _EXAMPLE.format(limit=15, step="BuildThing")


@rule(
    "ACCORD_SAGA_STEPS",
    purpose="Each step of a saga may be repeated and, before the pivot, undone.",
    why="the saga can neither go on nor turn back after a failure",
    bad=_EXAMPLE.format(limit=15, step="MakeThing"),
    good=_GOOD,
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
    bad=_EXAMPLE.format(limit=5, step="BuildThing"),
    good=_GOOD,
)
def fits(contracts: Contracts) -> Iterator[Finding]:
    """Steps that add up to more than the saga has."""
    for rpc in contracts.own_rpcs:
        limit = span(rpc.written.saga.timeout)
        found = (contracts.rpcs.get(step) for step in rpc.written.saga.steps)
        needed = sum(step.policy.timeout or 0.0 for step in found if step is not None)
        if 0 < limit < needed:
            yield Finding(
                rpc.at("saga", "timeout"),
                f"the steps of {rpc.short}'s saga may take {seconds(needed)}, the saga "
                f"{seconds(limit)}",
                f"write at least {seconds(needed)}, or shorten the timeouts of the steps",
            )
