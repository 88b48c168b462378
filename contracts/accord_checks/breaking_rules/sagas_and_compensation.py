"""Sagas and compensations: how work goes on, and how it is undone."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking_rules.change import Found, Risk, change_rule, parts
from accord_checks.declarations import Rpc

_TIMEOUT: Final = ("saga", "timeout")


@change_rule(
    "POLICY_COMPENSATION_CHANGED",
    Risk.BREAKING,
    purpose="No compensation is taken away, replaced or filled otherwise.",
    why="sagas that are under way undo something else, or nothing",
    before="""
compensation: {
  method: "example.v1.ThingService/DropThing"
  fill: {field: "thing_id" from: "request.thing_id"}
}
""",
    after="""
compensation: {
  method: "example.v1.ThingService/DropThing"
  fill: {field: "thing_id" from: "response.thing_id"}
}
""",
)
def compensation(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of one that was there."""
    return parts(old, new, "compensation", "keep it until no saga that began with it is under way")


_EXAMPLE: Final = """
saga: {{
  timeout: {{seconds: {}}}
  steps: [{}]
}}
"""
_ADD: Final = '"example.v1.ThingService/AddThing"'
_PART: Final = '"example.v1.ThingService/GetPart"'


@change_rule(
    "POLICY_SAGA_STEPS_CHANGED",
    Risk.BREAKING,
    purpose="Steps, order and pivot of a saga stay as they are.",
    why="what a step relied on has not been done before it, or is not undone after it",
    before=_EXAMPLE.format(60, f"{_ADD}, {_PART}"),
    after=_EXAMPLE.format(60, f"{_PART}, {_ADD}"),
)
def steps(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Steps that are added, dropped or moved; another pivot; a saga that is taken away."""
    return (found for found in _saga(old, new) if found.steps != _TIMEOUT)


@change_rule(
    "POLICY_SAGA_CHANGED",
    Risk.RISKY,
    purpose="The timeout of a saga stays as it is.",
    why="sagas under way were begun with another",
    before=_EXAMPLE.format(60, _ADD),
    after=_EXAMPLE.format(30, _ADD),
)
def saga(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Its timeout."""
    return (found for found in _saga(old, new) if found.steps == _TIMEOUT)


def _saga(old: Rpc, new: Rpc) -> Iterator[Found]:
    instead = "let sagas that are under way end with the definition they began with"
    return parts(old, new, "saga", instead)
