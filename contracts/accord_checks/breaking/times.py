"""How long calls and streams may take."""

import math
from collections.abc import Iterator

from accord_checks.breaking.change import Found, Risk, rpc_rule
from accord_checks.elements import Rpc
from accord_checks.text import seconds


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


@rpc_rule(
    "POLICY_TIMEOUT_SHORTENED",
    Risk.BREAKING,
    purpose="No timeout is shortened.",
    why="calls that took that long fail with DEADLINE_EXCEEDED",
    before="timeout: {seconds: 5}",
    after="timeout: {seconds: 2}",
)
def shortened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call's own timeout."""
    then, now = old.policy.timeout, new.policy.timeout
    if _limit(now) < _limit(then):
        yield Found(
            f"the timeout of {new.short} went from {seconds(then)} to {seconds(now)}",
            "keep it, or agree with its callers first",
            ("timeout",),
        )


@rpc_rule(
    "POLICY_TIMEOUT_LENGTHENED",
    Risk.RISKY,
    purpose="No timeout is lengthened.",
    why="callers wait longer, and theirs may no longer contain it",
    before="timeout: {seconds: 2}",
    after="timeout: {seconds: 5}",
)
def lengthened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """A call's own timeout."""
    then, now = old.policy.timeout, new.policy.timeout
    if _limit(now) > _limit(then):
        yield Found(
            f"the timeout of {new.short} went from {seconds(then)} to {seconds(now)}",
            "look at the `calls` of whoever waits for it",
            ("timeout",),
        )


@rpc_rule(
    "POLICY_ATTEMPT_TIMEOUT_CHANGED",
    Risk.RISKY,
    purpose="The timeout of an attempt stays as it is.",
    why="attempts end earlier, or leave less time for the next",
    before="timeout: {seconds: 5} attempt_timeout: {seconds: 2}",
    after="timeout: {seconds: 5} attempt_timeout: {seconds: 1}",
)
def attempt(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Of a single attempt."""
    then, now = old.policy.attempt_timeout, new.policy.attempt_timeout
    if then != now:
        yield Found(
            f"the attempt timeout of {new.short} went from {seconds(then)} to {seconds(now)}",
            "see that it leaves room for the attempts",
            ("attempt_timeout",),
        )


@rpc_rule(
    "POLICY_STREAM_SHORTENED",
    Risk.BREAKING,
    purpose="No stream ends earlier or is given up sooner than before.",
    why="streams that lived that long are ended",
    before="stream: {max_lifetime: {seconds: 600}}",
    after="stream: {max_lifetime: {seconds: 60}}",
)
def stream_shortened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Longest life and longest silence; only what a server writes has them."""
    if not new.policy.server_streaming:
        return
    for name in _BOUNDS:
        then, now = getattr(old.policy.stream, name), getattr(new.policy.stream, name)
        if now < then:
            yield Found(
                f"stream.{name} of {new.short} went from {seconds(then)} to {seconds(now)}",
                "keep it, or see that every caller resumes",
                ("stream", name),
            )


@rpc_rule(
    "POLICY_STREAM_CHANGED",
    Risk.RISKY,
    purpose="No stream lives longer, stays silent longer or pings at other times than before.",
    why="servers hold more streams, or proxies on the way take a quiet one for dead",
    before="stream: {max_lifetime: {seconds: 60}}",
    after="stream: {max_lifetime: {seconds: 600}}",
)
def stream_changed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Longer bounds, another keepalive; of what a server writes."""
    if not new.policy.server_streaming:
        return
    for name in (*_BOUNDS, "keepalive"):
        then, now = getattr(old.policy.stream, name), getattr(new.policy.stream, name)
        if now > then or (name == "keepalive" and now != then):
            yield Found(
                f"stream.{name} of {new.short} went from {seconds(then)} to {seconds(now)}",
                "see that servers and proxies bear it",
                ("stream", name),
            )


_BOUNDS = ("max_lifetime", "idle")
