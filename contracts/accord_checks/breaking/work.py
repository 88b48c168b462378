"""What an RPC calls, and what callers keep of its answers."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking.change import Found, Risk, rpc_rule
from accord_checks.elements import Rpc
from accord_checks.text import seconds

_CALL = """
calls: {{
  method: "example.v1.ThingService/GetPart"
  timeout: {{seconds: {}}}
}}
"""


@rpc_rule(
    "POLICY_CALLS_CHANGED",
    Risk.RISKY,
    purpose="No call is added, and none is given another timeout.",
    why="it depends on one more service, or waits for it another time",
    before=_CALL.format(1),
    after=_CALL.format(2),
)
def calls(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call that was taken away is safe."""
    places = {f"/{call.method}": index for index, call in enumerate(new.written.calls)}
    for callee, allowed in new.policy.calls.items():
        before = old.policy.calls.get(callee)
        if before is None:
            what = f"{new.short} calls {callee[1:]} now"
        elif before != allowed:
            what = (
                f"{new.short} allows {seconds(allowed)} for {callee[1:]}, no longer "
                f"{seconds(before)}"
            )
        else:
            continue
        yield Found(
            what, "see that its own timeout and its callers' bear it", ("calls", places[callee])
        )


_CACHED: Final = """
rpc GetThing(GetThingRequest) returns (GetThingResponse) {{
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {{cache: {{ttl: {{seconds: {}}}}}}};
}}
"""


@rpc_rule(
    "POLICY_CACHE_CHANGED",
    Risk.RISKY,
    purpose="No answer is kept that was not, longer than before, or past another write.",
    why="callers see older answers than before, or the server answers what was kept",
    before=_CACHED.format(30),
    after=_CACHED.format(300),
)
def cache(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A cache that is new, gone, or older; a shorter time and more invalidators are safe."""
    then, now = old.policy.cache, new.policy.cache
    if then is not None and now is None:
        what = f"the answers of {new.short} are no longer kept"
        yield Found(what, "see that the server bears the calls", ("cache",))
    if now is None:
        return
    if then is None:
        what = f"the answers of {new.short} are kept for {seconds(now.ttl)} now"
        yield Found(what, "see that callers bear an old answer", ("cache",))
        return
    if now.ttl > then.ttl:
        what = f"cache.ttl of {new.short} went from {seconds(then.ttl)} to {seconds(now.ttl)}"
        yield Found(what, "see that callers bear an old answer", ("cache", "ttl"))
    gone = sorted(set(then.invalidated_by) - set(now.invalidated_by))
    if gone:
        what = f"{', '.join(name[1:] for name in gone)} no longer drops the answers of {new.short}"
        yield Found(what, "keep it in `invalidated_by`", ("cache", "invalidated_by"))
