"""Streams that the server writes."""

from collections.abc import Iterator
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.declarations import Rpc
from accord_checks.formatting import seconds
from accord_checks.lint_rules.examples import ANYBODY, READS, block, get_thing, rpc_example
from accord_checks.lint_rules.rule import Finding, once, rule
from accord_checks.lint_rules.startup_errors import startup_errors

_LIFETIME: Final = "max_lifetime: {seconds: 3600}"
_REASON: Final = 'not_resumable: "It shows the present only; a caller that lost it begins again."'


def _watching(stream: str) -> str:
    return rpc_example("WatchThing", stream, ANYBODY, level=READS, stream=True)


@rule(
    "ACCORD_STREAM_RESUMABLE",
    purpose="A server stream can be resumed after a drop, or says why not.",
    why="a caller whose connection breaks has a gap, or everything again",
    bad=_watching(f"stream: {{{_LIFETIME}}}"),
    good=_watching(block("stream", _LIFETIME, _REASON)),
)
def resumable(contracts: Contracts) -> Iterator[Finding]:
    """Server streams with neither a token nor a reason, and tokens that are none."""
    for rpc in contracts.own_rpcs:
        method, written = rpc.descriptor, rpc.written
        if not method.server_streaming or method.client_streaming:
            continue
        if not written.HasField("resume") and not written.stream.not_resumable.strip():
            yield Finding(
                rpc.place,
                f"{rpc.short} says neither how it is resumed nor why it cannot be",
                'write `resume: {request_field: "after_sequence" response_field: "sequence"}`, or '
                '`stream: {not_resumable: "..."}`',
            )
    instead = "name an int64 or uint64 field of the request and one of the response"
    yield from startup_errors(contracts, instead, "resume")


@rule(
    "ACCORD_STREAM_KEEPALIVE",
    purpose="A stream is kept alive more often than it is ended for silence.",
    why="a quiet stream is ended before its first keepalive",
    bad=_watching(block("stream", _LIFETIME, "idle: {seconds: 20}", _REASON)),
    good=_watching(
        block("stream", _LIFETIME, "idle: {seconds: 20}", "keepalive: {seconds: 10}", _REASON)
    ),
)
@once
def kept_alive(contracts: Contracts) -> Iterator[Finding]:
    """Keepalives that are longer than `idle`, with the defaults for what is not written."""
    for rpc in contracts.own_rpcs:
        bounds, name = rpc.policy.stream, rpc.holder("stream")
        if rpc.descriptor.server_streaming and bounds.keepalive > bounds.idle:
            written = "keepalive" if rpc.written.stream.HasField("keepalive") else "idle"
            yield Finding(
                rpc.at("stream", written),
                f"stream.keepalive of {name} is {seconds(bounds.keepalive)}, its idle "
                f"{seconds(bounds.idle)}",
                "write a `keepalive` that is shorter than `idle`",
            )


@rule(
    "ACCORD_OPTION_EFFECTIVE",
    purpose="An RPC states nothing itself that has no effect on calls of its kind.",
    why="whoever reads it counts on what never happens",
    bad=get_thing("stream: {max_lifetime: {seconds: 60}}"),
    good=get_thing("attempt_timeout: {nanos: 600000000}"),
)
def effective(contracts: Contracts) -> Iterator[Finding]:
    """Bounds of a stream where the server writes none, second attempts of streams, and so on.

    A default of a service is meant for those of its RPCs on which it has an effect.
    """
    for rpc in contracts.own_rpcs:
        for option, reason in _without_effect(rpc):
            if rpc.own is not None and rpc.own.HasField(option):  # type: ignore[arg-type]
                yield Finding(
                    rpc.at(option),
                    f"{option} of {rpc.short} has no effect, {reason}",
                    f"take `{option}` away",
                )


def _without_effect(rpc: Rpc) -> Iterator[tuple[str, str]]:
    method = rpc.descriptor
    if method.server_streaming:
        yield "attempt_timeout", "for it answers with a stream"
    else:
        yield "stream", "for it answers only once"
    if method.client_streaming:
        yield "retry", "for a stream of requests cannot be sent again"
    if not rpc.unary:
        yield "hedge", "for a stream is never sent twice"
