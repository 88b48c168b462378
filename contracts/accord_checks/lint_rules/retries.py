"""Second attempts."""

from collections.abc import Iterator
from typing import Final

from accord.policies.types import Code
from accord_checks.contracts import Contracts
from accord_checks.declarations import Place, Rpc
from accord_checks.formatting import seconds
from accord_checks.lint_rules.examples import (
    ANYBODY,
    KEYED,
    RETRY,
    TIMEOUT,
    block,
    get_thing,
    rpc_example,
)
from accord_checks.lint_rules.rule import Finding, once, rule
from accord_checks.lint_rules.startup_errors import startup_errors

# What the documentation of gRPC's codes says of them: a repeat meets the same answer.
_FINAL: Final[frozenset[int]] = frozenset(
    {
        Code.CANCELLED,
        Code.INVALID_ARGUMENT,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.DATA_LOSS,
        Code.UNAUTHENTICATED,
    }
)
_PAUSE: Final = "initial_backoff: {nanos: 100000000}"
_INSTEAD: Final = {
    "retry.max_attempts": "write `max_attempts: 3`",
    "retry.initial_backoff": "write `initial_backoff: {nanos: 100000000}`",
    "retry.max_backoff": "write `max_backoff: {seconds: 10}`",
    "retry.codes": "write `codes: [STATUS_CODE_UNAVAILABLE]`",
}


def _retrying(*parts: str) -> str:
    return get_thing(block("retry", *parts))


@rule(
    "ACCORD_RETRY_BOUNDS",
    purpose="A retry makes 2 to 5 attempts, waits between them, and lists codes of failures.",
    why="more attempts, or attempts without a pause, turn a slow server into a dead one",
    bad=_retrying("max_attempts: 10", _PAUSE),
    good=_retrying("max_attempts: 3", _PAUSE),
)
def bounds(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    return startup_errors(contracts, "write `retry: {max_attempts: 3}`", "retry", specific=_INSTEAD)


@rule(
    "ACCORD_RETRY_IDEMPOTENT",
    purpose="An RPC that states a retry or a hedge is idempotent, by its level or by a key.",
    why="a second attempt may act twice",
    bad=rpc_example("AddThing", TIMEOUT, RETRY, ANYBODY),
    good=rpc_example("AddThing", TIMEOUT, RETRY, KEYED, ANYBODY),
)
def idempotent(contracts: Contracts) -> Iterator[Finding]:
    """Retries and hedges of RPCs that promise nothing about repeats.

    A default of the service is not made for them: of these ACCORD_MUTATION_KEY asks for a promise.
    """
    for rpc in contracts.own_rpcs:
        for option, done in (("retry", "retried"), ("hedge", "hedged")):
            own = rpc.own is not None and rpc.own.HasField(option)  # type: ignore[arg-type]
            if own and not rpc.policy.idempotent:
                yield Finding(
                    rpc.at(option),
                    f"{rpc.short} is {done} but not idempotent",
                    f"write `idempotency: {{key: KEY_REQUIRED}}`, declare an `idempotency_level` "
                    f"or take `{option}` away",
                )


@rule(
    "ACCORD_RETRY_CODES",
    purpose="A retry lists only codes that another attempt may change.",
    why="every attempt gets the same answer, and the server the load",
    bad=_retrying(
        "max_attempts: 3", "codes: [STATUS_CODE_UNAVAILABLE, STATUS_CODE_PERMISSION_DENIED]"
    ),
    good=_retrying("max_attempts: 3", "codes: [STATUS_CODE_UNAVAILABLE]"),
)
@once
def codes(contracts: Contracts) -> Iterator[Finding]:
    """Codes that say that the request, or its caller, is wrong."""
    for rpc in contracts.own_rpcs:
        for index, number in enumerate(rpc.written.retry.codes):
            if int(number) in _FINAL:
                yield Finding(
                    rpc.at("retry", "codes", index),
                    f"retry.codes of {rpc.holder('retry')} has {Code(number).name}, which is final",
                    "take it away",
                )


@rule(
    "ACCORD_RETRY_FITS",
    purpose="The first wait of a retry, and the delay of a hedge, end before the call does.",
    why="the second attempt is hardly ever made",
    bad=_retrying("max_attempts: 3", "initial_backoff: {seconds: 3}"),
    good=_retrying("max_attempts: 3", _PAUSE),
)
@once
def fits(contracts: Contracts) -> Iterator[Finding]:
    """Back-offs as long as the timeout; delays of a hedge as long as that, or as an attempt."""
    for rpc in contracts.own_rpcs:
        policy, longest = rpc.policy, rpc.policy.timeout
        if longest is None:
            continue
        if policy.retry is not None and policy.retry.initial_backoff >= longest:
            wait = ("retry", "initial_backoff")
            yield _late(rpc, wait, policy.retry.initial_backoff, f"timeout {seconds(longest)}")
        option = "timeout"
        if policy.attempt_timeout is not None:
            option, longest = "attempt_timeout", policy.attempt_timeout
        if policy.hedge is not None and policy.hedge.min_delay >= longest:
            delay = ("hedge", "min_delay")
            yield _late(rpc, delay, policy.hedge.min_delay, f"{option} {seconds(longest)}")


def _late(rpc: Rpc, steps: tuple[str, str], wait: float, other: str) -> Finding:
    name = rpc.holder(steps[0], "timeout", "attempt_timeout")
    what = f"{'.'.join(steps)} of {name} is {seconds(wait)}, its {other}"
    return Finding(_late_place(rpc, steps), what, "write a shorter wait")


def _late_place(rpc: Rpc, steps: tuple[str, str]) -> Place:
    """At the wait, unless it is a default and the timeout is not: that is what does not fit."""
    for option in (steps, ("timeout",), ("attempt_timeout",)):
        place = rpc.at(*option, inherited=False)
        if place != rpc.place:
            return place
    return rpc.at(*steps)
