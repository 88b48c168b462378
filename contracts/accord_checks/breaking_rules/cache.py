"""What callers keep of answers."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking_rules.change import Found, Risk, change_rule, gone, moved, raised
from accord_checks.declarations import Rpc
from accord_checks.formatting import seconds

_CACHED: Final = """
rpc GetThing(GetThingRequest) returns (GetThingResponse) {{
  option idempotency_level = NO_SIDE_EFFECTS;
  option (accord.v1.policy) = {{cache: {{ttl: {{seconds: {}}}}}}};
}}
"""


@change_rule(
    "POLICY_CACHE_CHANGED",
    Risk.RISKY,
    purpose="No answer is kept that was not, or longer than before.",
    why="callers see older answers than before, or the server answers what was kept",
    before=_CACHED.format(30),
    after=_CACHED.format(300),
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A cache that is new, gone, or older; a shorter time is safe."""
    then, now = old.policy.cache, new.policy.cache
    if then is not None and now is None:
        what = f"the answers of {new.short} are no longer kept"
        instead = "see that the server bears the calls"
        yield Found(what, instead, f"cache {seconds(then.ttl)} to none", ("cache",))
    if now is None:
        return
    if then is None:
        what = f"the answers of {new.short} are kept for {seconds(now.ttl)} now"
        instead = "see that callers bear an old answer"
        yield Found(what, instead, f"cache none to {seconds(now.ttl)}", ("cache",))
        return
    yield from moved(old, new, "cache.ttl", raised, "see that callers bear an old answer")


@change_rule(
    "POLICY_CACHE_STALE",
    Risk.BREAKING,
    purpose="Every write that drops a kept answer goes on to, and none is kept ten times as long.",
    why="callers see the old answer after their own write, or long after another's",
    before=_CACHED.format(30),
    after=_CACHED.format(3000),
)
def stale(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A write that is no longer in `invalidated_by`, a time that is no bound any more."""
    then, now = old.policy.cache, new.policy.cache
    if then is None or now is None:
        return
    yield from moved(old, new, "cache.ttl", gone, "keep it, or state a shorter one")
    gone_by = sorted(set(then.invalidated_by) - set(now.invalidated_by))
    if gone_by:
        names = ", ".join(name[1:] for name in gone_by)
        what = f"{names} no longer drops the answers of {new.short}"
        yield Found(what, "keep it in `invalidated_by`", names, ("cache", "invalidated_by"))
