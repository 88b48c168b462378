"""How long streams may live, and how they are resumed."""

from collections.abc import Iterator
from operator import lt, ne

from accord_checks.breaking_rules.change import Found, Risk, change_rule, moved, parts, raised
from accord_checks.declarations import Rpc


@change_rule(
    "POLICY_STREAM_SHORTENED",
    Risk.BREAKING,
    purpose="No stream ends earlier or is given up sooner than before.",
    why="streams that lived that long are ended",
    before="stream: {max_lifetime: {seconds: 600}}",
    after="stream: {max_lifetime: {seconds: 60}}",
)
def shortened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Longest life and longest silence; only what a server writes has them."""
    if new.policy.server_streaming:
        instead = "keep it, or see that every caller resumes"
        yield from moved(old, new, "stream.max_lifetime", lt, instead)
        yield from moved(old, new, "stream.idle", lt, instead)


@change_rule(
    "POLICY_STREAM_CHANGED",
    Risk.RISKY,
    purpose="No stream lives longer, stays silent longer or pings at other times than before.",
    why="servers hold more streams, or proxies on the way take a quiet one for dead",
    before="stream: {max_lifetime: {seconds: 60}}",
    after="stream: {max_lifetime: {seconds: 600}}",
)
def changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Longer bounds, another keepalive; of what a server writes."""
    if new.policy.server_streaming:
        instead = "see that servers and proxies bear it"
        yield from moved(old, new, "stream.max_lifetime", raised, instead)
        yield from moved(old, new, "stream.idle", raised, instead)
        yield from moved(old, new, "stream.keepalive", ne, instead)


@change_rule(
    "POLICY_RESUME_CHANGED",
    Risk.BREAKING,
    purpose="A stream that can be resumed stays so, with the same tokens.",
    why="callers whose stream breaks have a gap, or send a token that is not understood",
    before='resume: {request_field: "after_sequence" response_field: "sequence"}',
    after='stream: {not_resumable: "it shows the present only"}',
)
def resume(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of one that was there."""
    return parts(old, new, "resume", "keep the old tokens and add another RPC beside it")
