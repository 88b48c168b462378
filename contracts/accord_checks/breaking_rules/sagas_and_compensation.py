"""Sagas and compensations: how work goes on, and how it is undone."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule, parts
from accord_checks.declarations import Rpc


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


@change_rule(
    "POLICY_SAGA_CHANGED",
    Risk.RISKY,
    purpose="Steps, pivot and timeout of a saga stay as they are.",
    why="sagas under way were begun with other steps",
    before="""
saga: {
  timeout: {seconds: 60}
  steps: ["example.v1.ThingService/AddThing"]
}
""",
    after="""
saga: {
  timeout: {seconds: 30}
  steps: ["example.v1.ThingService/AddThing"]
}
""",
)
def saga(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of it."""
    return parts(
        old, new, "saga", "let sagas that are under way end with the definition they began with"
    )
