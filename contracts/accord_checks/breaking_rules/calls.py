"""What an RPC calls."""

from collections.abc import Iterator

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc
from accord_checks.formatting import seconds

_CALL = """
calls: {{
  method: "example.v1.ThingService/GetPart"
  timeout: {{seconds: {}}}
}}
"""


@change_rule(
    "POLICY_CALLS_CHANGED",
    Risk.RISKY,
    purpose="No call is added, and none is given another timeout.",
    why="it depends on one more service, or waits for it another time",
    before=_CALL.format(1),
    after=_CALL.format(2),
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call that was taken away is safe."""
    places = {f"/{call.method}": index for index, call in enumerate(new.written.calls)}
    for callee, allowed in new.policy.calls.items():
        before = old.policy.calls.get(callee)
        value = f"{callee[1:]} {seconds(before)} to {seconds(allowed)}"
        if before is None:
            what = f"{new.short} calls {callee[1:]} now"
        elif before != allowed:
            what = (
                f"{new.short} allows {seconds(allowed)} for {callee[1:]}, no longer "
                f"{seconds(before)}"
            )
        else:
            continue
        instead = "see that its own timeout and its callers' bear it"
        yield Found(what, instead, value, ("calls", places[callee]))
