"""Whether a service states a policy at all, and what is on its way out."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc, Service

_UNSTATED: Final = """\
service ThingService {
  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}"""
_STATED: Final = """\
service ThingService {
  option (accord.v1.service) = {
    owner: "team-things"
    defaults: {timeout: {seconds: 2}}
  };

  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}"""


@change_rule(
    "POLICY_REMOVED",
    Risk.BREAKING,
    purpose="No service stops stating a policy.",
    why="callers lose every timeout, retry and promise that they were given",
    before=_STATED,
    after=_UNSTATED,
)
def removed(old: Service, new: Service) -> Iterator[Found]:
    """Of the service itself or of one of its RPCs."""
    if old.stated and not new.stated:
        yield Found(f"{new.short} states no policy any more", "keep its policy", new.short)


@change_rule(
    "POLICY_BEGUN",
    Risk.RISKY,
    purpose="No service that had no policy begins to state one.",
    why="callers are bound to timeouts, keys and lists that they did not know",
    before=_UNSTATED,
    after=_STATED,
)
def begun(old: Service, new: Service) -> Iterator[Found]:
    """Of the service itself or of one of its RPCs."""
    if new.stated and not old.stated:
        yield Found(f"{new.short} states a policy now", "tell its callers", new.short)


@change_rule(
    "POLICY_DEPRECATION_REMOVED",
    Risk.BREAKING,
    purpose="What is deprecated stays so until it goes.",
    why="callers begin to use what its owner has told the others to leave",
    before="""rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option deprecated = true;
  option (accord.v1.policy) = {timeout: {seconds: 2}};
}""",
    after="""rpc GetThing(GetThingRequest) returns (GetThingResponse) {
  option (accord.v1.policy) = {timeout: {seconds: 2}};
}""",
)
def undeprecated(old: Rpc, new: Rpc) -> Iterator[Found]:
    """An RPC, by its own option."""
    if old.descriptor.GetOptions().deprecated and not new.descriptor.GetOptions().deprecated:
        yield Found(
            f"{new.short} is not deprecated any more",
            "keep `option deprecated = true`",
            new.short,
            ("deprecated",),
        )
